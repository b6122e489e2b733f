"""Runs of an arm are never taken for those of another arm of the same name."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

import recast_probe as rp
from recast_probe.content.digest import NoContent
from recast_probe.errors import InputError
from recast_probe.studies import Store, run_study
from recast_probe.studies.comparison import Arm, Comparison, PlannedArm, units
from recast_probe.studies.settings import described
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
    with pytest.raises(InputError, match="were made with other settings"):
        compared(probe, tmp_path, changed, **settings)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert compared(probe, tmp_path, Arm("random", 4)).equals(first)


def test_arms_can_be_added_under_new_names(probe, tmp_path):
    store = Store(tmp_path, {})
    for arms in ({"full": Arm("full")}, {"full": Arm("full"), "none": Arm("none")}):
        comparison = Comparison(probe, arms, store, steps=2)
        table = run_study(units(CASES[:1]), list(arms), comparison, store, progress=False)
    assert table["arm"].tolist() == ["full", "none"]


def test_settings_that_cannot_be_read_vouch_for_nothing(tmp_path):
    store = Store(tmp_path, {})
    store.bind("mine", {"budget": 4})
    (path,) = tmp_path.glob("*mine*.json")
    path.write_text(path.read_text().replace("4", "5", 1))
    with pytest.raises(InputError, match="cannot be read"):
        store.bind("mine", {"budget": 5})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (own(1), own(2)),
        (own(1), own(1, "[1]")),
        (lambda: 1, lambda: 2),
        (float("inf"), float("nan")),
    ],
    ids=["attribute", "code", "function", "float"],
)
def test_what_does_something_else_is_described_otherwise(one, other):
    assert described(one) != described(other)


def test_what_does_the_same_is_described_alike():
    assert described(own()) == described(own())
    assert described(own())["_amount"] == 1


def test_what_has_no_content_decides_no_stored_run():
    @dataclass(frozen=True)
    class Holder(rp.Intervention):
        amount: object

    with pytest.raises(NoContent, match="cannot be told from another"):
        described(Holder((number for number in range(3)).send))
