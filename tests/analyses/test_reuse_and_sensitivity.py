"""Rankings made beforehand: reused over prompts, and of other steps and blocks."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from analyses.amortisation import main as run_amortisation
from analyses.sensitivity import main as run_sensitivity
from recast_probe.budget import Adaptive
from recast_probe.cost_model import flux_kontext_dev, run_work
from recast_probe.errors import InputError
from recast_probe.probe import Probe
from recast_probe.recipes import amortisation, sensitivity
from recast_probe.recipes.remembered import Remembered
from recast_probe.studies.engine.sending import received, sent


def test_a_ranking_is_reused_at_equal_token_steps(tmp_path, capsys):
    found = run_amortisation(["--quick", "--subjects", "2", "--steps", "2", "--out", str(tmp_path)])
    assert "| reused ranking " in capsys.readouterr().out
    rows = {row["arm"]: row for row in found["table"]}
    assert rows["recast"]["token-steps"] == rows["reused ranking"]["token-steps"] == 256 + 64
    assert rows["reused ranking, from step 0"]["token-steps"] == 16 + 64
    runs = pd.read_parquet(tmp_path / "runs.parquet")
    identity = runs.pivot(index="prompt", columns="arm", values="identity")
    first = identity.index.str.startswith("0: ")
    # for the prompt that it was made for, it is the same ranking and so the same image
    assert (identity[first]["recast"] == identity[first]["reused ranking"]).all()
    assert (identity[~first]["recast"] != identity[~first]["reused ranking"]).all()
    measured = json.loads((tmp_path / "summary.json").read_text())["measured"]
    other = identity[~first]
    wanted = (other["reused ranking"] - other["recast"]).mean()
    assert measured["reused_above_fresh"]["mean"] == pytest.approx(wanted)
    assert (tmp_path / "amortisation.png").stat().st_size > 0


def test_what_a_ranking_saves_is_the_arithmetic_of_the_config():
    config, layout = flux_kontext_dev(), amortisation.FLUX_KONTEXT
    speeds = amortisation.speed_ups(config, layout, Adaptive.paper(4096), 28)
    assert speeds == sorted(speeds)
    full = run_work(config, 512, 4096, [4096] * 28).total
    pruned = run_work(config, 512, 4096, Adaptive.paper(4096).schedule(28).tolist()).total
    # one image pays for its full step, and never does the saving pass the bound of pruned steps
    assert speeds[0] == pytest.approx(1.88, abs=0.01)
    assert speeds[-1] < full / pruned
    assert speeds[-1] == pytest.approx(full / pruned, rel=1e-3)


def test_what_a_ranking_was_made_and_used_for():
    """Known scores: a ranking made for a new background gains 0.2 in local edits, and else 0."""
    table = pd.DataFrame(
        [
            {
                "subject": subject,
                "prompt": f"{index}: {kind}",
                "category": kind,
                "arm": arm,
                "identity": 0.3
                + 0.01 * number
                + (0.2 if arm == amortisation.REUSED and gain else 0),
            }
            for number, subject in enumerate(["fox", "car", "cup"])
            for index, (kind, gain) in enumerate([("background", False), ("local", True)], start=1)
            for arm in (amortisation.FRESH, amortisation.REUSED)
        ]
    )
    made = dict.fromkeys(["fox", "car", "cup"], "background")
    rows = amortisation.by_kind(table, made, seed=0)
    found = {(row["ranking made for"], row["used for"]): row for row in rows}
    assert set(found) == {
        ("the same kind", "any"),
        ("another kind", "any"),
        ("background", "background"),
        ("background", "local"),
    }
    assert found["background", "local"]["difference"].startswith("0.200 [")
    assert found["background", "local"]["reused"] == pytest.approx(0.51)
    assert found["background", "background"]["difference"].startswith("0.000 [")
    assert {row["pairs"] for row in rows} == {3}
    # 0.25 is the least of 3 subjects, and there are 4 rows
    assert {row["p (Holm)"] for row in rows} == {"1.00"}


def test_one_prompt_has_nothing_to_reuse_a_ranking_for(tmp_path):
    with pytest.raises(InputError, match="--prompts 2"):
        run_amortisation(["--prompts", "1", "--out", str(tmp_path)])


def test_other_blocks_are_those_that_the_model_has():
    assert sensitivity.other_blocks(["double", "single"]) == ["single", "double", "all"]
    assert sensitivity.other_blocks(["double", "double"]) == ["double", "all"]


def test_rankings_can_be_sent_to_workers():
    """As part of what a study performs; each case is ranked once."""
    pytest.importorskip("ray")
    probe = Probe.tiny("flux-kontext")
    for ranked in (sensitivity.rankings(probe, 2, [0, 1], 4), amortisation.rankings(probe, 2)):
        there = received(sent(ranked, "A ranking").content)
        assert isinstance(there, Remembered)
    asked = []
    remembered = Remembered(lambda case: asked.append(case) or len(asked))
    one, other = object(), object()
    assert [remembered(case) for case in (one, one, other, one)] == [1, 1, 2, 3]


def test_the_top_is_of_the_tokens_that_there_are():
    """Of 8 tokens a quarter are 2: one of 3 in both, whatever other cases have."""
    one, other = np.zeros(8), np.zeros(8)
    one[[0, 1]], other[[1, 2]] = 1, 1
    assert sensitivity.jaccard(np.stack([one, other])) == pytest.approx(1 / 3)
    sixteen = np.stack([np.repeat(one, 2), np.repeat(other, 2)])
    assert sensitivity.jaccard(sixteen) == pytest.approx(1 / 3)


def test_steps_and_blocks_at_equal_token_steps(tmp_path, capsys):
    # one subject has no intervals, and a table all the same
    found = run_sensitivity(["--quick", "--subjects", "1", "--steps", "3", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    names = sensitivity.names([0, 1, 2], ["double", "single"])
    assert [row["arm"] for row in found["table"]] == ["full", *names, "random"]
    assert all(f"| {name} " in printed for name in names)
    runs = pd.read_parquet(tmp_path / "runs.parquet")
    assert runs[runs["arm"] != "full"]["token_steps"].nunique() == 1
    agreed = runs.set_index("arm")[["spearman", "jaccard"]]
    assert (agreed.loc[sensitivity.BASELINE] == 1).all(axis=None)
    assert agreed.loc[["full", "random"]].isna().all(axis=None)
    others = agreed.drop(["full", "random", sensitivity.BASELINE])
    assert (others["spearman"] < 1).all()
    # on this model the last step ranks more like the first than a lone bad block does
    alike = others["spearman"]
    assert alike["step 2, blocks paper"] > alike["step 0, worst block alone"]
    blocks = runs.set_index("arm")["block"]
    assert blocks["step 0, middle block alone"] == 3
    assert blocks["step 0, best block alone"] != blocks["step 0, worst block alone"]
