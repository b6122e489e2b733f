"""Runs on one case are never taken for runs on another of the same names."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from recast_probe.content.digest import NoContent
from recast_probe.datasets import FileCase
from recast_probe.errors import InputError
from recast_probe.pocket.bench import pocket_bench
from recast_probe.studies import Store, dose_response, run_study
from recast_probe.studies.comparison import Arm, Comparison, units
from recast_probe.studies.engine.unit_runs import record_key
from recast_probe.studies.gate import gate
from tests.studies.test_gate import CASES
from tests.tiny_metrics import Words

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


def half(side, lock=None):
    """A finder of one half; with a lock it has no content."""

    def find(image):
        assert lock is None or not lock.locked()
        left = np.arange(image.width) < image.width // 2
        return np.tile(left == (side == "left"), (image.height, 1))

    return find


@pytest.fixture
def photograph(tmp_path):
    file = tmp_path / "fox.png"
    CASES[0].reference.save(file)
    return lambda finder=None: FileCase("fox", "in snow", "animal", 0, file, finder=finder)


def test_doses_with_another_finder_of_one_name_are_scored_anew(probe, tmp_path, photograph):
    settings = {"factors": {"bias": [0.5]}, "steps": 2, "progress": False}
    store = Store(tmp_path / "runs", {"model": "tiny"})

    def identity(of_case, finder, **where):
        found = dose_response(probe, [photograph(of_case)], finder=finder, **settings, **where)
        return found.runs["identity"].tolist()

    left, right = half("left"), half("right")
    seen = []
    for pair in ((left, left), (left, right), (right, left)):
        seen.append(identity(*pair, store=store))
        assert seen[-1] == identity(*pair)
    assert len({tuple(each) for each in seen}) == 3
    # a finder without content serves where nothing is stored
    nameless = half("left", threading.Lock())
    assert identity(nameless, nameless) == seen[0]
    for pair in ((nameless, left), (left, nameless)):
        with pytest.raises(NoContent, match="The mask finder"):
            identity(*pair, store=store)


@pytest.mark.parametrize(
    ("name", "one", "other", "without"),
    [
        ("finder", half("left"), half("right"), half("left", threading.Lock())),
        ("metrics", [Words(1)], [Words(2)], [Words(threading.Lock())]),
    ],
)
def test_an_arm_of_another_finder_or_metric_is_refused(probe, tmp_path, name, one, other, without):
    def table(value):
        store = Store(tmp_path, {})
        made = Comparison(probe, {"full": Arm("full")}, store, steps=2, **{name: value})
        return run_study(units(CASES[:1]), ["full"], made, store, progress=False)

    first = table(one)
    with pytest.raises(InputError, match="'full'"):
        table(other)
    with pytest.raises(NoContent):
        table(without)
    assert table(one).equals(first)


@pytest.mark.parametrize(
    ("name", "one", "other", "without"),
    [
        ("finder", half("left"), half("right"), half("left", threading.Lock())),
        ("metric", Words(1), Words(2), Words(threading.Lock())),
    ],
)
def test_a_gate_goes_on_with_its_own_finder_and_metric(probe, tmp_path, name, one, other, without):
    def verdict(value):
        settings = {"limit": 0.5, "steps": 2, "controls": ["fewer steps"], "progress": False}
        return gate(probe, CASES[:2], "reuse", out=tmp_path, **settings, **{name: value}).verdict

    assert verdict(one) == verdict(one)
    with pytest.raises(InputError, match=name):
        verdict(other)
    with pytest.raises(NoContent):
        verdict(without)
