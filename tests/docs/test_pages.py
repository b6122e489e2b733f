"""The code of every page does what it says, with fewer steps and subjects, in one go a page."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import matplotlib
import pytest

from docs.site.pages import DOCS, blocks, run_python
from recast_probe import metrics, pocket
from recast_probe.cli import main

# what is made; notebooks, the page with files to save and the gate's have tests of their own
LEFT_OUT = ("api", "notebooks", "own-pipeline.md", "gate.md", "findings.md", "findings")
PAGES = {
    str(path.relative_to(DOCS)): path
    for path in sorted(DOCS.rglob("*.md"))
    if path.relative_to(DOCS).parts[0] not in LEFT_OUT
}
WITH_CODE = [name for name, path in PAGES.items() if [*blocks(path.read_text())]]
# what a page says of a real study, and what its test runs
QUICK = {
    r"\bsteps=28\b": "steps=2",
    r"^(\w*STEPS) = \d+": r"\1 = 2",
    r"samples\(\)\[:8\]": "samples()[:2]",
}
QUICK_COMMANDS = ("profile", "generate", "explore", "study")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where a page finds what its reader has: two pictures, a mask, and a folder of photographs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(metrics.registry, "ENTRIES", dict(metrics.registry.ENTRIES))
    matplotlib.use("agg")
    fox, hat = pocket.samples()[2:4]
    fox.image.resize((512, 512)).save("fox.png")
    hat.image.save("hat.png")
    bright = fox.image.convert("L").point(lambda value: 255 if value > 128 else 0)
    for name in ("fox-mask.png", "mask.png"):
        bright.resize((512, 512)).save(name)
    Path("photos").mkdir()
    for sample in pocket.samples()[:2]:
        sample.image.save(f"photos/{sample.name}.png")
    return tmp_path


@pytest.mark.parametrize("page", WITH_CODE)
def test_page_runs(page, folder, capsys):
    names: dict = {}
    for block in blocks(PAGES[page].read_text()):
        if not block.run:
            continue
        if block.language == "python":
            run_python(block, str(PAGES[page]), names, QUICK)
        for words in block.commands:
            # a list of what there is has no steps
            shortened = words[0] in QUICK_COMMANDS and not {"--steps", "--list"} & set(words)
            quick = ["--steps", "2"] if shortened else []
            # looking for the subject takes longer than a run
            few = ["--masks", "none", "--subjects", "1"]
            quick += few if shortened and words[0] == "study" else []
            try:
                main([*words, *quick])
            except SystemExit as stop:
                pytest.fail(f"{words}: exit code {stop.code}, {capsys.readouterr().err}")


@pytest.mark.parametrize("page", PAGES)
def test_code_is_whole(page):
    """No block leaves something out, and what is not run is told why."""
    for block in blocks(PAGES[page].read_text()):
        assert "..." not in block.code, f"{page}:{block.line} has no code where it should"


def test_every_fence_is_seen():
    for name, path in PAGES.items():
        text = path.read_text()
        fences = re.findall(r"^```(?:python|bash)$", text, flags=re.MULTILINE)
        assert len(fences) == len([*blocks(text)]), name


@pytest.mark.parametrize("page", PAGES)
def test_links_to_other_sites_are_well_formed(page):
    """Whether they answer is for `make docs-links`, which needs a network."""
    for link in re.findall(r"\]\((\w+://[^)]*)\)", PAGES[page].read_text()):
        parts = urlsplit(link)
        assert parts.scheme == "https", link
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), link
        assert not set(link) & set(" <>"), link
