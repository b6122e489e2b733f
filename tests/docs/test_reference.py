"""The reference has every public name once, and knows what else it is called."""

from __future__ import annotations

from types import ModuleType

import pytest

import recast_probe as rp

pytest.importorskip("sphinx")

from docs.site import reference


@pytest.fixture(scope="module")
def pages():
    return reference.pages()


def test_every_public_name_is_described_once(pages):
    described = [getattr(page.module, name) for page in pages for name in page.own]
    functions = [id(each) for each in described if callable(each)]
    assert len(functions) == len(set(functions))
    for name in rp.__all__:
        value = getattr(rp, name)
        if isinstance(value, ModuleType):
            assert value in [page.module for page in pages], name
        else:
            assert id(value) in functions, name


def test_names_lead_to_where_they_are_described(pages):
    ways = reference.aliases(pages)
    for way in ("skew", "rp.skew", "diagnostics.skew", "recast_probe.diagnostics.skew.skew"):
        assert ways[way] == "recast_probe.diagnostics.skew"
    assert ways["rp.Probe"] == "recast_probe.Probe"


def test_pages_that_did_not_change_are_left(tmp_path):
    reference.write(tmp_path)
    page = tmp_path / "rp-diagnostics.rst"
    before = page.stat().st_mtime_ns
    (tmp_path / "rp-gone.rst").write_text("an old page")
    reference.write(tmp_path)
    assert page.stat().st_mtime_ns == before
    assert not (tmp_path / "rp-gone.rst").exists()
