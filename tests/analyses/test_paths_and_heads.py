"""Cut paths and heads on the bundled model, small."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from analyses.heads import main as run_heads
from analyses.paths import main as run_paths
from recast_probe.recipes import heads, paths


def test_paths_are_cut_and_compared_in_pairs(tmp_path, capsys, monkeypatch):
    few = ("reference to generation", "both to reference", paths.EVERYTHING)
    monkeypatch.setattr(paths, "PATHS", {name: paths.PATHS[name] for name in few})
    small = ["--quick", "--subjects", "2", "--steps", "1", "--out", str(tmp_path)]
    found = run_paths(small)
    printed = capsys.readouterr().out
    rows = {row["cut"]: row for row in found["table"]}
    assert list(rows) == ["nothing", *paths.PATHS]
    assert all(f"| {cut} " in printed for cut in rows)
    runs = pd.read_parquet(tmp_path / "runs.parquet")
    assert len(runs) == 2 * 4 * (1 + len(paths.PATHS))
    identity = runs[runs["category"] != paths.STYLE].groupby("arm")["identity"].mean()
    assert identity["full"] != identity["reference to generation"]
    shares = {row["cut"]: row for row in found["shares"]}
    direct = shares["reference to generation"]["shape"]
    by_hand = (identity["full"] - identity["reference to generation"]) / (
        identity["full"] - identity[paths.EVERYTHING]
    )
    assert direct[0] == pytest.approx(by_hand)
    assert direct[1] <= direct[2]
    assert set(shares["both to reference"]) == {"cut", "shape", "colour", "target", "style"}
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert stored["shares"] == found["shares"]
    assert stored["arms"]["both to reference"]["knockouts"][1]["from_group"] == "text"
    assert (tmp_path / "paths.png").stat().st_size > 0
    assert run_paths(small) == found


def test_blocks_and_heads_are_attributed_and_related(tmp_path, capsys, monkeypatch):
    """Two blocks stand for all, so that the test is quick."""
    whole = heads.attribution
    monkeypatch.setattr(
        heads, "attribution", lambda *given, **named: whole(*given, blocks=[0, 2], **named)
    )
    small = ["--quick", "--subjects", "2", "--steps", "1", "--out", str(tmp_path)]
    found = run_heads(small)
    printed = capsys.readouterr().out
    assert {row["block"] for row in found["blocks"]} == {0, 2}
    assert len(found["heads"]) == 8
    assert {"block", "head", "loss of identity", "latent distance"} <= set(found["heads"][0])
    assert "| distance  | mass " in printed
    assert len(found["relation"]) == 12
    for name in ("blocks.png", "heads.png", "head.parquet", "reading.parquet"):
        assert (tmp_path / name).stat().st_size > 0
    monkeypatch.setattr(heads, "attribution", None)
    assert run_heads(small) == found


def test_columns_come_back_as_labels():
    data = xr.Dataset(
        {"effect": (("block", "head"), np.arange(6.0).reshape(2, 3))},
        coords={"block": [1, 12], "head": [0, 2, 10]},
    )
    row = heads.flat(data)
    assert row["effect 12.10"] == 5
    table = pd.DataFrame([{"subject": name, **row} for name in ("a", "b")])
    xr.testing.assert_equal(heads.gathered(table, 0)["effect"], data["effect"])
