"""The pages of the API reference: one for each public module, made from what it exports."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.pycode import ModuleAnalyzer

import recast_probe as rp

PACKAGE = rp.__name__
# rooms whose names are met without being imported: what is raised, what rp.explore returns, and
# the gate, which is loaded only where it is used
ALSO = ("errors", "explorer", "studies.gate")
# what the classes in here have is shown with the classes that are made of them
UNLISTED = (f"{PACKAGE}.profiles.run_labels",)


@dataclass
class Page:
    """A public module, with the names that are described there and those described elsewhere.

    Attributes:
        own: names in the order of the alphabet.
        elsewhere: by name, the full name under which another page has it.
    """

    module: ModuleType
    own: list[str] = field(default_factory=list)
    elsewhere: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.module.__name__.replace(PACKAGE, "rp", 1)

    @property
    def file(self) -> str:
        return f"{self.title.replace('.', '-')}.rst"


def public_names(module: ModuleType) -> list[str]:
    """What `__all__` lists; else what a folder imports from its files, or a file defines."""
    if listed := getattr(module, "__all__", None):
        return sorted(listed, key=str.lower)
    home = PACKAGE if hasattr(module, "__path__") else module.__name__
    found = []
    for name, value in vars(module).items():
        if isinstance(value, ModuleType):
            ours = hasattr(value, "__all__") and value.__name__.startswith(module.__name__)
        elif name.isupper():
            ours = hasattr(module, "__path__")
        else:
            ours = str(getattr(value, "__module__", "")).startswith(home)
        if ours and not name.startswith("_"):
            found.append(name)
    return sorted(found, key=str.lower)


def modules() -> list[ModuleType]:
    """Every public module; the package itself, which names what the others have, comes last."""

    def inside(module: ModuleType) -> Iterator[ModuleType]:
        for name in public_names(module):
            value = getattr(module, name)
            if isinstance(value, ModuleType):
                yield value
                yield from inside(value)

    also = [importlib.import_module(f"{PACKAGE}.{name}") for name in ALSO]
    return [*dict.fromkeys([*inside(rp), *also]), rp]


def pages() -> list[Page]:
    """All pages; a name that several modules have is described on the first of them."""
    homes: dict[Any, str] = {}
    made = []
    for module in modules():
        page = Page(module)
        for name in public_names(module):
            value = getattr(module, name)
            if isinstance(value, ModuleType):
                continue
            full = f"{module.__name__}.{name}"
            # equal constants may be one object
            key = id(value) if callable(value) else full
            if homes.setdefault(key, full) == full:
                page.own.append(name)
            else:
                page.elsewhere[name] = homes[key]
        made.append(page)
    return made


def returned(made: Sequence[Page]) -> dict[str, type]:
    """Classes by full name that public functions and `Probe` return and no page describes."""
    described = [getattr(page.module, name) for page in made for name in page.own]
    ours = [each for name, each in sys.modules.items() if name.startswith(PACKAGE)]
    classes = {
        name: value
        for module in ours
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__
    }
    callables = [each for each in described if inspect.isroutine(each)]
    callables += [each for each in vars(rp.Probe).values() if inspect.isroutine(each)]
    words = [re.findall(r"\w+", str(each.__annotations__.get("return", ""))) for each in callables]
    found = {classes[word] for line in words for word in line if word in classes}
    return {
        f"{each.__module__}.{each.__qualname__}": each
        for each in sorted(
            found - {*filter(inspect.isclass, described)}, key=lambda each: each.__name__
        )
    }


def aliases(made: Sequence[Page]) -> dict[str, str]:
    """Every way to call a public name, and the full name under which it is described."""
    found: dict[str, str] = {}
    for page in made:
        module = page.module.__name__
        names = {name: f"{module}.{name}" for name in page.own} | page.elsewhere
        for name, full in names.items():
            value = getattr(page.module, name)
            for way in (f"{module}.{name}", f"{page.title}.{name}", f"{page.title[3:]}.{name}"):
                found.setdefault(way.lstrip("."), full)
            if callable(value):
                found.setdefault(f"{value.__module__}.{value.__qualname__}", full)
    for full in list(found.values()):
        found.setdefault(full.rpartition(".")[2], full)
    return found


def write(folder: Path) -> dict[str, str]:
    """Write the pages and their index; gives the `aliases`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = pages()
    other = returned(made)
    texts = {page.file: _page(page, made) for page in made} | {"index.rst": _index(made)}
    texts["returned.rst"] = _returned(other)
    for old in folder.glob("*.rst"):
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        path = folder / name
        # a file that stays as it was is not read again
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)
    return {value.__name__: full for full, value in other.items()} | aliases(made)


def first_sentence(value: Any) -> str:
    text = inspect.getdoc(value) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _heading(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}\n"


def _index(made: Sequence[Page]) -> str:
    rp_first = [made[-1], *sorted(made[:-1], key=lambda page: page.title)]
    rows = "\n".join(
        f"   * - :doc:`{page.title} <{page.file[:-4]}>`\n     - {first_sentence(page.module)}"
        for page in rp_first
    )
    files = "\n".join(f"   {page.title} <{page.file[:-4]}>" for page in rp_first)
    return f"""\
{_heading("API reference")}
Every public name, from the docstrings. Their examples are run by the tests.
``import recast_probe as rp`` brings all of these modules.

.. list-table::
   :widths: 30 70

{rows}
   * - :doc:`returned`
     - Classes that are met as results, such as the certificate of ``Probe.verify``.

.. toctree::
   :hidden:

{files}
   returned
"""


def _returned(classes: Mapping[str, type]) -> str:
    parts = [
        _heading("Returned objects"),
        "Classes that are met as results, and not made by hand.\n",
    ]
    for full in classes:
        module, _, name = full.rpartition(".")
        parts += [f".. py:currentmodule:: {module}\n", f".. autoclass:: {name}\n   :members:\n"]
    return "\n".join(parts)


def _page(page: Page, made: Sequence[Page]) -> str:
    inner = [each for each in made if each.title.rpartition(".")[0] == page.title != "rp"]
    parts = [_heading(page.title)]
    if page.module is rp:
        parts.append("The names that stand in the package itself.\n")
    parts.append(f".. py:module:: {page.module.__name__}\n")
    if page.module is not rp and page.module.__doc__:
        parts.append(inspect.cleandoc(page.module.__doc__) + "\n")
    parts.append(_table(page))
    if inner:
        rows = "\n".join(f"* :doc:`{each.title} <{each.file[:-4]}>`" for each in inner)
        parts.append(f"Modules inside:\n\n{rows}\n")
    parts += [_described(page.module, name) for name in page.own]
    return "\n".join(parts)


def _table(page: Page) -> str:
    rows = [(name, f"{page.module.__name__}.{name}") for name in page.own]
    rows = sorted([*rows, *page.elsewhere.items()], key=lambda row: row[0].lower())
    if not rows:
        return ""
    lines = [".. list-table::", "   :widths: 30 70", ""]
    for name, full in rows:
        value = getattr(page.module, name)
        said = first_sentence(value) if callable(value) else ""
        lines += [f"   * - :py:obj:`{name} <{full}>`", f"     - {said}"]
    return "\n".join(lines) + "\n"


def _described(module: ModuleType, name: str) -> str:
    value = getattr(module, name)
    if inspect.isclass(value):
        bases = "" if value.__bases__ == (object,) else "   :show-inheritance:\n"
        if any(each.__module__ in UNLISTED for each in value.__bases__):
            bases = "   :inherited-members:\n"
        return f".. autoclass:: {name}\n   :members:\n{bases}"
    if inspect.isroutine(value):
        return f".. autofunction:: {name}\n"
    said = "\n\n".join(_constant_docs(module, name)).replace("\n", "\n   ")
    return f".. py:data:: {name}\n\n   {said}\n"


def _constant_docs(module: ModuleType, name: str) -> Iterator[str]:
    """The text below a constant, in the file of the module's folder that sets it."""
    for home in [module, *(each for each in vars(module).values() if isinstance(each, ModuleType))]:
        if home.__name__.startswith(PACKAGE) and hasattr(home, name):
            found = ModuleAnalyzer.for_module(home.__name__)
            found.analyze()
            if ("", name) in found.attr_docs:
                yield "\n".join(found.attr_docs["", name])
                return
