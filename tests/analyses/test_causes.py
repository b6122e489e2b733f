"""The causal scripts on the bundled model, small; a second call runs nothing again."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from analyses import causal_map, faithfulness
from recast_probe.errors import InputError
from recast_probe.recipes.faithfulness import RANKINGS


def test_the_map_of_a_subject_swap(tmp_path, capsys, monkeypatch):
    arguments = ["--subjects", "1", "--steps", "2", "--out", str(tmp_path)]
    found = causal_map.main(arguments)
    printed = capsys.readouterr()
    assert "18 runs, 17 of them still to do" in printed.err
    assert "MB of activations" in printed.err
    assert "1 maps, each of 18 runs" in printed.out
    runs = pd.read_parquet(tmp_path / "maps.parquet")
    cells = runs[[f"shift block {b} step {s}" for b in range(8) for s in range(2)]]
    assert ((cells > 0) & (cells < 1)).all(axis=None)
    # towards the other subject: its run looks more like it than this one does
    assert (runs["identity source"] > runs["identity own"]).all()
    assert [row["patched"] for row in found["table"]][-2:] == ["step 0", "step 1"]
    assert found["cost"]["runs_a_map"] == 18
    assert (tmp_path / "causal_map.png").stat().st_size > 0
    monkeypatch.setattr(
        "recast_probe.probe.Probe.generate", lambda *_, **__: pytest.fail("ran again")
    )
    assert causal_map.main(arguments)["table"] == found["table"]


def test_more_swaps_than_pairs_of_subjects_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("recast_probe.probe.Probe.pocket", None)  # before a model is loaded
    with pytest.raises(InputError, match=r"--subjects 76 .* 75 pairs"):
        causal_map.main(["--subjects", "76", "--out", str(tmp_path)])


def test_curves_of_every_ranking(tmp_path, capsys, monkeypatch):
    arguments = ["--quick", "--subjects", "1", "--steps", "2", "--out", str(tmp_path)]
    found = faithfulness.main(arguments)
    rows = {row["ranking"]: row for row in found["table"]}
    assert list(rows) == list(RANKINGS)
    printed = capsys.readouterr().out
    assert all(f"| {name} " in printed for name in rows)
    runs = pd.read_parquet(tmp_path / "runs.parquet").set_index("arm")
    assert runs["inserted 0"].nunique() == runs["inserted 1"].nunique() == 1
    assert runs.loc["cross-image", "margin"] > runs.loc["random", "margin"]
    assert runs["agreement"].drop("causal oracle").abs().max() < 1
    checks = {row["check"]: float(row["Spearman"].split()[0]) for row in found["controls"]}
    assert len(checks) == 4 + 2 * 8
    assert checks["another seed"] > checks["from block 0 on randomised"]
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert stored["table"] == found["table"]
    monkeypatch.setattr(
        "recast_probe.probe.Probe.generate", lambda *_, **__: pytest.fail("ran again")
    )
    assert faithfulness.main(arguments) == found
