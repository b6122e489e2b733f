"""The gallery has every public figure function, each with its picture."""

from __future__ import annotations

import re

from docs.site.pages import DOCS, blocks
from recast_probe import figures

TEXT = (DOCS / "gallery.md").read_text()
PUBLIC = {name for name in dir(figures) if name.startswith("plot_")} | {
    "house_style",
    "save_figure",
}


def test_every_figure_has_a_section_that_calls_it():
    sections = dict.fromkeys(re.findall(r"^### (\w+)$", TEXT, flags=re.MULTILINE))
    assert set(sections) == PUBLIC
    for name in sections:
        code = "".join(block.code for block in blocks(TEXT) if block.heading == name)
        assert f"figures.{name}(" in code, name


def test_every_figure_has_its_picture():
    shown = re.findall(r"^!\[(.+)\]\(gallery/(\w+)\.png\)$", TEXT, flags=re.MULTILINE)
    assert {name for _, name in shown} == PUBLIC - {"save_figure"}
    assert all(len(said.split()) > 4 for said, _ in shown), "the text in place of a picture"
