"""The page on the strength of the reference, small."""

from __future__ import annotations

import json

import pandas as pd

from analyses import dose_response
from recast_probe.recipes import dose_response as recipe


def test_doses_are_tabled_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "FACTORS", {"bias": (0, 1, 2)})
    numbers = tmp_path / "numbers.json"
    asked = ["--model", "tiny:flux-kontext", "--quick", "--out", str(tmp_path)]
    rows = dose_response.main([*asked, "--measured", str(numbers)])
    table = rows["reference by bias"]
    assert [row["factor"] for row in table] == ["0", "1", "2"]
    assert table[1]["identity minus factor 1"] == "-"
    held = json.loads(numbers.read_text())["findings"]
    found = held["identity_with_reference_bias_2_above_1"]
    assert found["subjects"] == 2
    assert f"{found['mean']:.3f}" in table[2]["identity minus factor 1"]
    assert -1 <= held["target_error_with_reference_bias_trend"]["mean"] <= 1
    text = (tmp_path / "page.md").read_text()
    assert "The reference, by bias" in text
    assert text.count("| factor") == 1
    # two subjects cannot decide anything
    assert "Identity at the factors 0 and 2 is not told apart" in text
    assert "2 subjects cannot give a p-value below 0.5" in text


def test_what_holds_at_each_factor_needs_interval_and_p_value():
    """Above at 4 by both, and at 2 by the interval alone; below at 0."""
    rows = {
        0.0: {"difference": -0.5, "low": -0.6, "high": -0.4, "p_value": 0.001, "p_holm": 0.003},
        1.0: {"difference": 0.0, "low": 0.0, "high": 0.0, "p_value": 1.0, "p_holm": 1.0},
        2.0: {"difference": 0.1, "low": 0.02, "high": 0.2, "p_value": 0.03, "p_holm": 0.06},
        4.0: {"difference": 0.2, "low": 0.1, "high": 0.3, "p_value": 0.001, "p_holm": 0.003},
    }
    curve = pd.DataFrame.from_dict(rows, orient="index").assign(subjects=24)
    points = recipe.changes({"identity": curve})
    assert {factor: round(each["p_holm"], 6) for (_, factor), each in points.items()} == {
        0: 0.003,
        2: 0.06,
        4: 0.003,
    }
    assert recipe._says("identity", {factor: each for (_, factor), each in points.items()}) == [
        "Identity at the factor 0 is below that of the run as it is.",
        "Identity at the factor 4 is above that of the run as it is.",
        "Identity at the factor 2 is not told apart from that of the run as it is.",
    ]
