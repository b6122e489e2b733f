"""The other tables on the bundled model, small."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from analyses import budget_sweep, concentration, schedules, stability, table_2

SMALL = ["--quick", "--subjects", "1", "--prompts", "1", "--steps", "3"]


@pytest.fixture
def run(tmp_path, capsys):
    def main(analysis):
        found = analysis.main([*SMALL, "--out", str(tmp_path)])
        printed = capsys.readouterr().out
        stored = json.loads((tmp_path / "summary.json").read_text())
        assert stored["table"] == found["table"]
        assert len(list(tmp_path.glob("*.png"))) == 1
        rows = {row["arm"]: row for row in found["table"]}
        assert all(f"| {arm} " in printed for arm in rows)
        return rows, pd.read_parquet(tmp_path / "runs.parquet")

    return main


def test_the_ablation_has_every_block_alone(run):
    rows, runs = run(table_2)
    assert {f"block {block} alone" for block in range(8)} <= set(rows)
    pruned = runs[runs["arm"] != "full"]
    assert pruned["token_steps"].nunique() == 1


def test_schedules_cost_the_same(run):
    rows, runs = run(schedules)
    assert list(rows) == ["full", "Eq. 4", "flat", "inverted", "entropy-matched"]
    assert runs[runs["arm"] != "full"]["token_steps"].nunique() == 1
    images = runs.groupby("arm")["identity_to_full"].first()
    assert images["Eq. 4"] != images["inverted"]


def test_the_sweep_says_what_every_budget_saves(run):
    rows, _ = run(budget_sweep)
    speeds = [rows[f"recast {count}"]["speed-up by FLOP"] for count in (128, 64, 32, 16)]
    assert 1 < speeds[0] < speeds[1] < speeds[2] < speeds[3] < rows["none"]["speed-up by FLOP"]
    assert rows["full"]["speed-up by FLOP"] == 1
    assert rows["recast 64"]["token-steps"] == 256 + 2 * 64


def test_rankings_across_prompts(tmp_path, capsys):
    small = ["--quick", "--subjects", "2", "--prompts", "6", "--out", str(tmp_path)]
    found = stability.main(small)
    printed = capsys.readouterr().out
    assert [row["measure"] for row in found["table"]] == [
        *("spearman", "kendall", "jaccard", "rank biased overlap"),
        *("spearman same category", "spearman other category"),
    ]
    assert "| spearman " in printed
    summary = json.loads((tmp_path / "summary.json").read_text())
    spearman = summary["measured"]["spearman"]["mean"]
    assert summary["measured"]["spearman_same_category"]["mean"] > spearman
    assert found["table"][0]["lowest"] <= spearman <= found["table"][0]["highest"]
    # on this model rankings of step 0 follow the kind of edit
    same, other = (row["lowest"] for row in found["table"][-2:])
    assert same > other
    assert stability.main(small) == found


def test_concentration_of_attention(tmp_path, capsys):
    small = ["--quick", "--subjects", "2", "--steps", "3", "--out", str(tmp_path)]
    found = concentration.main(small)
    assert "| top 25 % of tokens, of the mean score " in capsys.readouterr().out
    runs = pd.read_parquet(tmp_path / "runs.parquet")
    assert [name for name in runs if name.startswith("step ")] == ["step 0", "step 1", "step 2"]
    assert len([name for name in runs if name.startswith("block ")]) == 8
    assert (runs["top25"] <= runs["top25_of_blocks"] + 1e-9).all()
    assert runs["step 0"].tolist() == runs["entropy_first"].tolist()
    measured = json.loads((tmp_path / "summary.json").read_text())["measured"]
    assert measured["top25"]["mean"] == pytest.approx(runs["top25"].mean())
    # pair by pair against what position alone reaches, which is far from 0.5
    assert (runs["auroc_center"] > 0.7).all()
    for name in ("center", "other_masks"):
        above = runs["auroc"] - runs[f"auroc_{name}"]
        assert runs[f"auroc_above_{name}"].to_numpy() == pytest.approx(above.to_numpy())
        assert measured[f"auroc_above_{name}"]["mean"] == pytest.approx(above.mean())
        # of two subjects: every other way of signing them is as extreme, or one in two is
        agree = above.groupby(runs["subject"]).mean().gt(0).nunique() == 1
        assert measured[f"auroc_above_{name}"]["p_value"] == (0.5 if agree else 1.0)
    fall = runs["entropy_first"] - runs["entropy_last"]
    assert measured["entropy_fall"]["mean"] == pytest.approx(fall.mean())
    assert measured["entropy_maximum"] == 8
    assert (tmp_path / "concentration.png").stat().st_size > 0
    assert concentration.main(small) == found
