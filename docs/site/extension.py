"""What this site adds to Sphinx: made pages and pictures, and links from names to the reference."""

from __future__ import annotations

import builtins
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import find_pending_xref_condition

from docs.site import gallery, reference

ROOT = Path(__file__).parents[2]
PYTHON = "py"
# files beside this folder that pages show by including them
SHOWN = {
    "CHANGELOG.md": "changes",
    "CONTRIBUTING.md": "contributing",
    "README.md": "families",
    "recast_probe/pocket/adapter/weights/README.md": "adapter-card",
    "recast_probe/pocket/model/README.md": "model-card",
}


def make(app: Sphinx) -> None:
    """Write what is made: the reference, the gallery's pictures, and a copy of the notebooks."""
    source = Path(app.srcdir)
    app.recast_names = reference.write(source / "api")  # type: ignore[attr-defined]
    gallery.draw(source / "gallery")
    copies = source / "notebooks"
    copies.mkdir(exist_ok=True)
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy2(path, copies / path.name)


class LeadOutside(SphinxPostTransform):
    """Links to files beside this folder lead to the page that shows them; others are plain text."""

    default_priority = 8  # before MyST resolves them, at 9

    def run(self, **_: Any) -> None:
        for node in list(self.document.findall(addnodes.pending_xref)):
            if node.get("reftype") != "myst" or node["reftarget"] in self.env.all_docs:
                continue
            target = node["reftarget"] + (".md" if node.get("refdomain") == "doc" else "")
            for start in (Path(self.app.srcdir), ROOT):
                path = (start / target.partition("#")[0]).resolve()
                if not path.exists() or not path.is_relative_to(ROOT) or target.startswith("#"):
                    continue
                page = SHOWN.get(str(path.relative_to(ROOT)))
                if page is None:
                    node.replace_self(node.children)
                else:
                    node["refdomain"], node["reftarget"] = "doc", page
                    node["reftargetid"] = None
                break


def described(app: Sphinx, name: str) -> str | None:
    """The full name under which the reference describes `name`; None where it does not."""
    names: dict[str, str] = app.recast_names  # type: ignore[attr-defined]
    objects = app.env.domaindata[PYTHON]["objects"]
    name = name.removesuffix("()").removeprefix("~")
    # a method stands below the class that it is of
    head, members = name, ""
    while head:
        if head in names and f"{names[head]}{members}" in objects:
            return f"{names[head]}{members}"
        head, _, last = head.rpartition(".")
        members = f".{last}{members}"
    return None


def link(app: Sphinx, fromdoc: str, full: str, content: nodes.Node) -> nodes.reference:
    entry = app.env.domaindata[PYTHON]["objects"][full]
    target = app.builder.get_relative_uri(fromdoc, entry.docname)
    return nodes.reference(
        "", "", content, internal=True, refuri=f"{target}#{entry.node_id}", reftitle=full
    )


@cache
def inner_names() -> set[str]:
    """Everything that any file of the package calls by a name."""
    ours = [each for name, each in sys.modules.items() if name.startswith("recast_probe")]
    return {name for module in ours for name in vars(module)}


class ResolveTypes(SphinxPostTransform):
    """Types and errors are named as they are imported where they stand.

    Those of the package that are not public stay without a link. Sphinx would search all objects
    for each, and take methods of the same name.
    """

    default_priority = 7  # before Sphinx resolves them, at 10

    def run(self, **_: Any) -> None:
        for node in list(self.document.findall(addnodes.pending_xref)):
            if node.get("refdomain") != PYTHON:
                continue
            name = node["reftarget"]
            full = described(self.app, name)
            # a type's short name, where its full one is kept as well
            short = find_pending_xref_condition(node, "resolved")
            children = node.children if short is None else short.children
            if full is not None:
                content = nodes.inline("", "", *children)
                node.replace_self(link(self.app, self.env.docname, full, content))
            elif hasattr(builtins, name) or name.rpartition(".")[2] in inner_names():
                node.replace_self(children)


class LinkNames(SphinxPostTransform):
    """Inline code that is a public name, such as `rp.skew`, leads to its description."""

    default_priority = 700

    def run(self, **_: Any) -> None:
        for node in list(self.document.findall(nodes.literal)):
            text = node.astext()
            # a plain word is a name where it is written as one
            known = "." in text or text.endswith("()") or any(each.isupper() for each in text[:1])
            known = known or "_" in text
            if not known or isinstance(node.parent, nodes.reference | nodes.title):
                continue
            full = described(self.app, text)
            if full is not None:
                copy = node.deepcopy()
                node.replace_self(link(self.app, self.env.docname, full, copy))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("builder-inited", make)
    app.add_post_transform(ResolveTypes)
    app.add_post_transform(LeadOutside)
    app.add_post_transform(LinkNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
