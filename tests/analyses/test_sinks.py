"""Sinks are looked for on half of the subjects and cut on the others."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from analyses import sinks
from recast_probe.diagnostics import sinks as find
from recast_probe.errors import InputError
from recast_probe.experiments import SinkKnockout
from recast_probe.recipes.sinks import effects_of, nearest_tokens
from recast_probe.testing.planted_received import planted_received

SMALL = ("--model", "tiny:flux-kontext", "--quick", "--steps", "2")


def test_what_comes_nearest_is_cut_where_nothing_passes(tmp_path):
    numbers = tmp_path / "numbers.json"
    asked = [*SMALL, "--nearest", "2", "--out", str(tmp_path), "--measured", str(numbers)]
    found = sinks.main(asked)
    assert sum(map(len, found["cut"].values())) == 2
    parts = {row["part"]: float(row["share of attention"].split()[0]) for row in found["mass"]}
    assert parts["generation"] + parts["reference"] < 1
    held = json.loads(numbers.read_text())["findings"]
    assert held["mass_on_prompt"]["count"] == 2
    for cut in ("sinks", "first_text_token"):
        name = f"change_of_the_whole_image_by_cutting_{cut}_above_random"
        assert held[name]["subjects"] == 2
    text = (tmp_path / "page.md").read_text()
    assert "none passed for sinks" in text
    assert "Cutting what comes nearest" in text
    with pytest.raises(InputError, match="4 or more"):
        sinks.main([*SMALL, "--subjects", "3", "--out", str(tmp_path / "few")])


def test_the_nearest_are_those_in_most_heads():
    runs = [planted_received(seed, [2, 30], heads=0.25) for seed in range(4)]
    found = find(runs, draws=99)
    assert nearest_tokens(found, 2) == {"text": [2], "reference": [8]}


def test_measures_are_corrected_for_one_another():
    measures = ["change-whole_to_full", "identity", "colour", "target_error"]
    row = {"difference": 0.2, "low": 0.1, "high": 0.3, "p_value": 0.02, "subjects": 16}
    knockout = SinkKnockout(pd.DataFrame(), pd.DataFrame([row] * 4, measures), {}, ())
    found = effects_of(knockout)
    assert list(found) == measures
    assert [each["p_holm"] for each in found.values()] == pytest.approx([0.08] * 4)
