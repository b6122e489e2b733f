"""The page on the strength of the reference, small."""

from __future__ import annotations

import json

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
