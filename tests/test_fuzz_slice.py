"""A small part of `make fuzz`: every kind of input that needs no model, a few of each."""

from __future__ import annotations

import os

import pytest

from tests.fuzz import command_line, data, masks, pictures, profiles, stored
from tests.fuzz.harness import run
from tests.fuzz.whole import tiny_profile

CLASSES = {
    each.name: each
    for module in (pictures, masks, profiles, stored, data, command_line)
    for each in module.CLASSES
    if each.name not in ("activations", "demo runs", "study records", "checkpoints", "command line")
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the fuzzer forks")
def test_nothing_is_answered_wrongly_or_raw(tmp_path):
    base = tmp_path / "whole"
    base.mkdir()
    tiny_profile().save(base / "profile.nc")
    counts = {name: 4 if name == "texts in pages" else 25 for name in CLASSES}
    found = run(list(CLASSES.values()), counts, seed=7, base=base, lanes=1)
    assert sum(sum(each.found.values()) for each in found.values()) == sum(counts.values())
    assert {name: each.bad for name, each in found.items() if each.bad} == {}
    # the inputs are not all refused: some are whole, and come back as they were
    assert sum(each.found["right"] for each in found.values()) > 30
