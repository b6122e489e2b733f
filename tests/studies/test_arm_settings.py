"""Runs of an arm are never taken for those of another arm of the same name."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

import recast_probe as rp
from recast_probe.content.description import describe_setting
from recast_probe.content.digest import NoContent
from recast_probe.errors import InputError
from recast_probe.studies import Outcome, Store, dose_response, run_study
from recast_probe.studies.comparison import Arm, Comparison, PlannedArm, units
from tests.studies.test_gate import CASES

CODE = """
class Own(Intervention):
    def __init__(self, amount):
        self._amount = amount

    def keep(self, step, run):
        return {kept}
"""


def own(amount=1, kept="[0]"):
    """An intervention of a class written by a user, who is free to write it anew."""
    space = {"Intervention": rp.Intervention, "__name__": "own"}
    exec(CODE.format(kept=kept), space)
    return space["Own"](amount)


def arm(*interventions, steps=None):
    return Arm("mine", given=interventions, steps=steps)


def compared(probe, folder, changed, steps=2, **settings):
    arms = {"full": Arm("full"), "mine": changed}
    comparison = Comparison(probe, arms, Store(folder, {}), steps=steps, **settings)
    return run_study(units(CASES[:1]), list(arms), comparison, Store(folder, {}), progress=False)


@pytest.mark.parametrize(
    ("changed", "settings"),
    [
        (Arm("random", 5), {}),
        (Arm("uniform", 4), {}),
        (Arm("random", 4, steps=1), {}),
        (Arm("random", 4), {"steps": 3}),
        (Arm("random", 4), {"metrics": ["ssim"]}),
        (Arm("random", 4), {"profiled": ["mine"]}),
        (PlannedArm({"method": "random"}, lambda case: []), {}),
    ],
)
def test_another_arm_of_a_name_is_refused_and_what_there_was_stays(
    probe, tmp_path, changed, settings
):
    first = compared(probe, tmp_path, Arm("random", 4))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="was made with other settings"):
        compared(probe, tmp_path, changed, **settings)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert compared(probe, tmp_path, Arm("random", 4)).equals(first)


def test_arms_can_be_added_under_new_names(probe, tmp_path):
    store = Store(tmp_path, {})
    for arms in ({"full": Arm("full")}, {"full": Arm("full"), "none": Arm("none")}):
        comparison = Comparison(probe, arms, store, steps=2)
        table = run_study(units(CASES[:1]), list(arms), comparison, store, progress=False)
    assert table["arm"].tolist() == ["full", "none"]


def test_runs_that_do_not_say_how_they_were_made_are_refused(probe, tmp_path):
    def perform(unit, arms):
        return [Outcome(arm, {"identity": 0.5}) for arm in arms]

    run_study(units(CASES[:1]), ["full", "mine"], perform, Store(tmp_path, {}), progress=False)
    with pytest.raises(InputError, match="was made with other settings"):
        compared(probe, tmp_path, Arm("random", 4))


def test_runs_of_a_pipeline_that_was_changed_since_are_refused(tmp_path):
    probe = rp.Probe.tiny("flux-kontext")
    store = Store(tmp_path, {})
    doses = {"factors": {"bias": [0.5]}, "steps": 1, "store": store, "progress": False}
    found = dose_response(probe, CASES[:2], **doses)
    compared(probe, tmp_path, Arm("random", 4))
    weight = next(probe.pipe.transformer.parameters())
    before = weight.detach().clone()
    with torch.no_grad():
        weight.add_(1)
    for again in (
        lambda: dose_response(probe, CASES[:2], **doses),
        lambda: compared(probe, tmp_path, Arm("random", 4)),
    ):
        with pytest.raises(InputError, match="fingerprint was"):
            again()
    with torch.no_grad():
        weight.copy_(before)
    assert found.runs.equals(dose_response(probe, CASES[:2], **doses).runs)


@dataclass
class Half:
    part: object


@dataclass
class One:
    number: int = 1


@dataclass
class Two:
    number: int = 1


class Counted(rp.Keep):
    """Holds more than the fields of the class that it is made from."""

    def __init__(self, amount):
        super().__init__([0])
        object.__setattr__(self, "amount", amount)


class Slots(rp.Intervention):
    __slots__ = ("amount",)

    def __init__(self, amount):
        self.amount = amount


class Terse(rp.Intervention):
    def describe(self):
        return {"name": "Terse"}


class Curt(rp.Intervention):
    def describe(self):
        return {"name": "Terse"}


class Walk:
    """A setting that can be gone through, and does more than that."""

    def __init__(self, start):
        self.start = start

    def __iter__(self):
        return iter([1, 2])


@dataclass(frozen=True)
class Walking(rp.Intervention):
    walk: object


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (own(1), own(2)),
        (own(1), own(1, "[1]")),
        (lambda: 1, lambda: 2),
        (float("inf"), float("nan")),
        (Half(One()), Half(Two())),
        (Counted(1), Counted(2)),
        (Slots(1), Slots(2)),
        (Terse(), Curt()),
        (Walking(Walk(1)), Walking(Walk(2))),
        (Walking(Half(One())), Walking(Half(Two()))),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_does_something_else_is_described_otherwise(one, other):
    assert describe_setting(one, strict=True) != describe_setting(other, strict=True)


def test_what_does_the_same_is_described_alike():
    assert describe_setting(own(), strict=True) == describe_setting(own(), strict=True)
    assert describe_setting(own(), strict=True)["_amount"] == 1


def test_what_has_no_content_decides_no_stored_run():
    @dataclass(frozen=True)
    class Holder(rp.Intervention):
        amount: object

    with pytest.raises(NoContent, match="cannot be told from another"):
        describe_setting(Holder((number for number in range(3)).send), strict=True)
