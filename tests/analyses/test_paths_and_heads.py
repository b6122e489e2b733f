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
    # two subjects do not show that anything is lost
    assert shares["reference to generation"]["shape"] is None
    assert "| not defined" in printed
    assert set(shares["both to reference"]) == {"cut", "shape", "colour", "target", "style"}
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert stored["shares"] == found["shares"]
    assert stored["arms"]["both to reference"]["knockouts"][1]["from_group"] == "text"
    assert (tmp_path / "paths.png").stat().st_size > 0
    assert run_paths(small) == found


def test_a_share_of_what_is_lost_is_given_where_something_is(monkeypatch):
    few = ("reference to generation", paths.EVERYTHING)
    monkeypatch.setattr(paths, "PATHS", {name: paths.PATHS[name] for name in few})
    rng = np.random.default_rng(0)
    none, direct = rng.normal(0.2, 0.02, 8), rng.normal(0.4, 0.02, 8)
    arms = {"full": np.full(8, 0.8), "reference to generation": direct, paths.EVERYTHING: none}
    noise = {name: rng.normal(0.5, 0.1, 8) for name in arms}
    table = pd.DataFrame(
        [
            {
                **{"subject": f"s{place}", "prompt": "p", "category": "background change"},
                **{"arm": name, "identity": scores[place], "colour": noise[name][place]},
                "target_error": 0.5,
            }
            for name, scores in arms.items()
            for place in range(8)
        ]
    )
    rows = {row["cut"]: row for row in paths.shares(table, seed=0)}
    mean, low, high, count = rows["reference to generation"]["shape"]
    assert mean == pytest.approx((0.8 - direct.mean()) / (0.8 - none.mean()))
    assert low < mean < high
    assert count == 8
    assert rows["reference to generation"]["colour"] is None
    figure = paths.draw(list(rows.values()), "x")
    assert [line.get_label() for line in figure.axes[0].lines[:2]] == ["shape", "colour"]


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
