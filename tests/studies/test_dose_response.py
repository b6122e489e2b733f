"""Doses are the runs that they say they are, and curves are paired."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import recast_probe as rp
from recast_probe import figures
from recast_probe.datasets import load_benchmark
from recast_probe.errors import InputError
from recast_probe.files.envelope import read_sealed
from recast_probe.metrics import IdentityScorer
from recast_probe.studies import DoseResponse, Store, dose_response
from recast_probe.studies.dose_response import Dose


@pytest.fixture(scope="module")
def cases():
    return load_benchmark("pocket", subjects=4, prompts=1)


def opened(store, subject, arm):
    keys = [read_sealed(path, "Record")["key"] for path in store.folder.glob("*-*.json")]
    (key,) = (key for key in keys if (key["subject"], key["arm"]) == (subject, arm))
    with Image.open(store.load(key).files[".png"]) as image:
        return np.asarray(image.convert("RGB"))


def test_each_of_two_references_is_weighed_by_itself(cases, tmp_path):
    probe = rp.Probe.tiny("flux2-klein")
    pairs = [cases[:2], cases[2:]]
    store = Store(tmp_path, {**probe.identity(), "model": probe.name})
    settings = {"factors": {"bias": [0.5, 1], "scale": [2]}, "steps": 2, "progress": False}
    found = dose_response(probe, pairs, store=store, **settings)
    groups = ("reference_0", "reference_1")
    assert found.lines == [(group, mode) for mode in ("bias", "scale") for group in groups]
    assert found.measures == ["identity_0", "identity_1"]
    doses = [f"{group} {end}" for end in ("bias 0.5", "scale 2") for group in groups]
    assert found.runs["arm"].unique().tolist() == ["full", "none", *doses]
    first = found.runs.iloc[0]
    images = {arm: opened(store, first["subject"], arm) for arm in ("full", *doses)}
    assert len({image.tobytes() for image in images.values()}) == 5
    run = {"steps": 2, "seed": pairs[0][0].seed, "progress": False}
    references = [case.reference for case in pairs[0]]
    for arm, weigh in (
        ("full", ()),
        ("full", rp.Weigh("reference_0", 1, mode="bias")),
        ("reference_1 bias 0.5", rp.Weigh("reference_1", 0.5, mode="bias")),
        ("reference_0 scale 2", rp.Weigh("reference_0", 2, mode="scale")),
    ):
        image = probe.generate(references, pairs[0][0].prompt, interventions=weigh, **run).image
        np.testing.assert_array_equal(images[arm], np.asarray(image))
    case = pairs[0][1]
    score = IdentityScorer().score(
        Image.fromarray(images["full"]), case.target_mask, case.reference, case.reference_mask
    )
    assert first["identity_1"] == pytest.approx(score["mobilenet"], abs=1e-5)
    curve = found.curve("identity_1", "reference_0", "bias")
    wide = found.runs.pivot(index="subject", columns="arm", values="identity_1")
    change = wide["reference_0 bias 0.5"] - wide["full"]
    assert curve.index.tolist() == [0.5, 1]
    assert curve.loc[0.5, "difference"] == pytest.approx(change.mean())
    assert curve.loc[1, ["difference", "low", "high"]].tolist() == [0, 0, 0]
    again = dose_response(probe, pairs, store=store, **settings)
    assert again.runs.equals(found.runs)
    assert len(figures.plot_dose_response(found).axes) == 2


def made(scores):
    """Five subjects, their scores by factor."""
    rows = [
        {"subject": f"s{i}", "prompt": "p", "arm": arm, "identity": value + 0.01 * i}
        for i in range(5)
        for arm, value in scores.items()
    ]
    doses = tuple(Dose("reference", "bias", factor) for factor in (0.5, 1, 2))
    return DoseResponse(pd.DataFrame(rows), doses, "planted")


def test_a_trend_is_the_order_of_the_scores():
    rising = made({"full": 0.5, "none": 0, "reference bias 0.5": 0.3, "reference bias 2": 0.7})
    assert rising.trend("identity", "reference", "bias").mean == 1
    falling = made({"full": 0.5, "none": 0, "reference bias 0.5": 0.7, "reference bias 2": 0.3})
    assert falling.trend("identity", "reference", "bias").mean == -1
    flat = made({"full": 0.5, "none": 0, "reference bias 0.5": 0.5, "reference bias 2": 0.5})
    assert flat.trend("identity", "reference", "bias").mean == 0
    curve = rising.curve("identity", "reference", "bias")
    assert curve["difference"].tolist() == pytest.approx([-0.2, 0, 0.2])
    assert curve["mean"].tolist() == pytest.approx([0.32, 0.52, 0.72])
    with pytest.raises(InputError, match="'reference_1'"):
        rising.curve("identity", "reference_1", "bias")
    with pytest.raises(InputError, match="colour"):
        rising.trend("colour", "reference", "bias")


def test_no_two_factors_share_an_arm():
    names = {
        0: "0",
        0.5: "0.5",
        2: "2",
        0.1234567: "0.1234567",
        0.1234568: "0.1234568",
        1 / 3: "0.3333333333333333",
        0.333333: "0.333333",
        1 + 1e-9: "1.000000001",
        1e7 + 1: "10000001.0",
    }
    for factor, name in names.items():
        assert Dose("reference", "bias", float(factor)).name == f"reference bias {name}"
    assert Dose("reference", "scale", 1.0).name == "full"


def test_what_makes_no_curve_is_refused(cases):
    probe = rp.Probe.tiny("flux2-klein")
    for given, factors, message in (
        ([], {"bias": [2]}, "no cases"),
        ([cases[:2], cases[2:3]], {"bias": [2]}, "1 and 2"),
        (cases, {}, "no factor"),
        (cases, {"bias": [1]}, "1 alone"),
        (cases, {"odds": [2]}, "'odds'"),
        (cases, {"bias": [-1]}, "-1"),
        (cases, {"scale": [float("nan")]}, "nan"),
    ):
        with pytest.raises(InputError, match=message):
            dose_response(probe, given, factors=factors, steps=2)
