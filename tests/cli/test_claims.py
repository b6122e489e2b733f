"""`recast-probe claims`: figures of the real config, of other models, and of measurements."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.test_bad_input import refused

ROOT = Path(__file__).parents[2]


def test_the_paper_s_model(command):
    found = json.loads(command("claims", "--json").out)
    assert found["parameters"] == 11_901_408_320
    assert [round(flop / 1e12, 2) for flop in found["flop_per_step"].values()] == [
        *(165.46, 86.26, 74.38)
    ]
    text = command("claims").out
    assert "11,901,408,320 parameters" in text
    assert "IMPOSSIBLE: 2.4x faster at 600 tokens" in text
    assert "1.918x" in text
    assert "2.224x" in text
    assert "516.7" in text
    assert "11.04 bits" in text


def test_other_models_and_measurements(command, tiny_folder, tmp_path):
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps({"model": "tiny", "measured": {"retention": 0.5}}))
    outcome = command("claims", "--model", tiny_folder, "--measured", summary, "--json")
    found = json.loads(outcome.out)
    assert found["parameters"] < 1e6
    assert found["measured_on"] == "tiny"
    kept = [each for each in found["claims"] if each["measured"] == "50.0%"]
    assert [each["verdict"] for each in kept] == ["fails"]
    printed = command("claims", "--measured", summary).out
    assert "Measured on tiny" in printed
    assert "FAILS: ReCAST keeps 97.3 %" in printed
    assert "NOT MEASURED: Entropy falls" in printed


def test_the_table_of_the_findings_is_what_the_command_prints(command):
    """Character by character, from the summaries that lie beside it."""
    findings = (ROOT / "docs" / "findings.md").read_text()
    files = [
        path
        for path in sorted((ROOT / "docs" / "measured").glob("*.json"))
        if json.loads(path.read_text()).get("measured")
    ]
    assert files
    options = [part for path in files for part in ("--measured", path)]
    printed = command("claims", "--markdown", *options).out
    assert printed.startswith("| claim | paper |")
    assert findings.count(printed) == 1
    assert "measured on pocket-kontext" in printed.splitlines()[0]


def test_bad_input(command, tmp_path):
    refused(command("claims", "--model", tmp_path), "No transformer config")
    refused(command("claims", "--measured", tmp_path / "none.json"), "no summary")
