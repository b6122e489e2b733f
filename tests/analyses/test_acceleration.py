"""What saves work: every arm runs, and its bound is that of the plan it followed."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from analyses.acceleration import main
from recast_probe.cost_model import FluxConfig, RunPlan
from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.recipes import acceleration

LAYOUT = TokenLayout(32, Grid(16, 16), (Grid(16, 16),))


def test_every_arm_runs_and_is_set_beside_its_bound(tmp_path, capsys):
    found = main(["--quick", "--subjects", "1", "--steps", "8", "--out", str(tmp_path)])
    rows = {row["arm"]: row for row in found["table"]}
    assert list(rows) == list(acceleration.arms_for(256, 8))
    assert rows["full"]["speed-up by FLOP"] == 1
    assert rows["pruned: 64"]["token-steps"] == 256 + 7 * 64
    assert rows["none"]["token-steps"] == 0
    runs = pd.read_parquet(tmp_path / "runs.parquet").set_index("arm")
    closer = [f"reused{more}" for more in (": all", ", refreshed: all, every 2")]
    assert runs.loc[closer, "identity_to_full"].is_monotonic_increasing
    assert runs.loc["full", "identity_to_full"] == pytest.approx(1)
    assert (runs["identity_to_full"] <= 1 + 1e-6).all()
    drift = {(row["source step"], row["quantity"]): row for row in found["drift"]}
    assert all(row["last step"] > 0 for row in drift.values())
    assert (tmp_path / "front.png").stat().st_size > 0
    assert json.loads((tmp_path / "summary.json").read_text())["table"] == found["table"]
    assert "Arms against one another" in capsys.readouterr().out


def test_pairs_are_corrected_for_one_another():
    """8 subjects and differences that are all of one sign: 12 times the smallest p-value."""
    rows = [
        {"subject": f"s{subject}", "prompt": "0: p", "category": "any", "arm": arm}
        | {"identity": 0.01 * place + 0.001 * subject * place, "target_error": 0.5 - 0.01 * place}
        for subject in range(8)
        for place, arm in enumerate(acceleration.arms_for(256, 28))
    ]
    pairs = acceleration.against(pd.DataFrame(rows), 0)
    assert len(pairs) == 12
    assert {row["p (identity, Holm)"] for row in pairs} == {"0.09"}
    assert {row["p (target error, Holm)"] for row in pairs} == {"0.09"}


def test_few_steps_have_no_arms_of_their_own(tmp_path):
    with pytest.raises(InputError, match="--steps 8 or more"):
        main(["--steps", "4", "--out", str(tmp_path)])


def test_bounds_are_those_of_the_plans():
    config, steps = FluxConfig(3, 5, 4, 32, 64, 64, 32, True), 28
    full = RunPlan.full(32, 256, 256, steps)
    every_4 = full.reuse(1, refresh=range(0, steps, 4))
    plans = {
        "full": full,
        "none": full.keep(0, start=0),
        "random: 128": full.keep(128),
        "pruned: 32": full.keep(32),
        "reused: all": full.reuse(1),
        "reused: 64": full.keep(64).reuse(1),
        "reused: all, of step 7": full.reuse(8),
        "reused, refreshed: all, every 4": every_4,
        "step cache: 14": full.compute(14),
        "fewer steps: 14": RunPlan.full(32, 256, 256, 14),
    }
    arms = acceleration.arms_for(256, steps)
    for name, plan in plans.items():
        wanted = full.work(config).total / plan.work(config).total
        found = acceleration.bound(config, LAYOUT, arms[name], steps)
        assert found == pytest.approx(wanted), name


def test_lines_join_arms_that_differ_in_one_number():
    names = list(acceleration.arms_for(256, 28))

    def of(kind):
        return acceleration.series([name for name in names if acceleration.kind_of(name) == kind])

    assert of("pruned") == ["pruned: 128", "pruned: 64", "pruned: 32"]
    assert of("reused") == ["reused: all", "reused: 128", "reused: 64"]
    ending = ", every 4"
    assert of("reused, refreshed") == [f"reused, refreshed: {n}{ending}" for n in ("all", 128, 64)]
    assert of("both") == ["both: pruned, step cache"]
