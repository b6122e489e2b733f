"""Runs on one case are never taken for runs on another of the same names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recast_probe.pocket.bench import pocket_bench
from recast_probe.studies import Store, dose_response, run_study
from recast_probe.studies.comparison import Arm, Comparison, units
from recast_probe.studies.engine.unit_runs import record_key
from tests.studies.test_gate import CASES

LABELS = ["subject", "prompt", "category", "arm"]


def compared(probe, cases, folder):
    store = Store(folder, {"steps": 2})
    comparison = Comparison(probe, {"full": Arm("full")}, store, steps=2)
    return run_study(units(cases), ["full"], comparison, store, progress=False)


def test_another_seed_is_run_and_the_first_runs_stay(probe, tmp_path):
    one, other = CASES[:1], [replace(CASES[0], seed=7)]
    first, second = compared(probe, one, tmp_path), compared(probe, other, tmp_path)
    pairs = first[LABELS].to_numpy() == second[LABELS].to_numpy()
    assert pairs.all()
    assert first.columns.tolist() == second.columns.tolist()
    assert first["colour"].item() != second["colour"].item()
    # and what there was is found again, seconds too
    assert compared(probe, one, tmp_path).equals(first)


def test_pocket_bench_of_another_seed_has_keys_of_its_own():
    keys = [
        [record_key(unit, "full") for unit in units(pocket_bench(3, 1, seed=seed))]
        for seed in (0, 1)
    ]
    assert not [key for key in keys[0] if key in keys[1]]
    assert keys[0][0].keys() == {"subject", "prompt", "category", "content", "arm"}


def test_doses_of_other_settings_may_share_a_store(probe, tmp_path):
    store = Store(tmp_path, {"model": "tiny"})

    def table(**changes):
        settings = {"factors": {"bias": [0.5]}, "steps": 2, "progress": False} | changes
        runs = dose_response(probe, CASES[:2], store=store, **settings).runs
        return runs.drop(columns="seconds")

    def alone(**changes):
        settings = {"factors": {"bias": [0.5]}, "steps": 2, "progress": False} | changes
        return dose_response(probe, CASES[:2], **settings).runs.drop(columns="seconds")

    first = table()
    for changes in ({"to_group": "text"}, {"steps": 3}, {"factors": {"bias": [0.5000001]}}):
        found = table(**changes)
        assert found.equals(alone(**changes)), changes
        doses = found["arm"].str.startswith("reference"), first["arm"].str.startswith("reference")
        scores = [each.loc[at, "colour"] for each, at in zip((found, first), doses, strict=True)]
        assert "factors" in changes or not np.array_equal(*scores), changes
    assert table().equals(first)
