"""The gate end to end on the tiny model: arms, work, resuming, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image

import recast_probe as rp
from recast_probe.cost_model import RunPlan, config_of
from recast_probe.errors import InputError
from recast_probe.files.envelope import read_sealed
from recast_probe.interventions import (
    Keep,
    Prune,
    Recast,
    ReuseReference,
    StepCache,
    WithoutReference,
)
from recast_probe.interventions.methods import method
from recast_probe.report.gate_page import write_gate_page
from recast_probe.studies import non_inferiority
from recast_probe.studies.comparison import units
from recast_probe.studies.gate import gate as run_gate
from recast_probe.studies.gate.equal_cost import (
    CONTROLS,
    NoControlError,
    PlannedRun,
    control,
    full_plan,
    planned,
    smaller_reference,
)
from recast_probe.studies.gate.plans import GatePlans
from recast_probe.studies.gate.settings import gate_settings
from recast_probe.testing import tiny

STEPS = 3


@dataclass(frozen=True, eq=False)
class Edit:
    """One prompt for one reference, as `datasets.Case` asks."""

    subject: str
    reference: Image.Image
    prompt: str = "fox"
    category: str = "scene"
    seed: int = 0
    reference_mask: np.ndarray | None = None
    target: Image.Image | None = None
    target_mask: np.ndarray | None = None


CASES = [Edit(name, tiny.tiny_image(seed=seed), seed=seed) for seed, name in enumerate("abc")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("gate")


def decide(probe, folder, **changes):
    settings = {"limit": 0.03, "out": folder, "steps": STEPS, "progress": False} | changes
    cases, method = settings.pop("cases", CASES), settings.pop("method", "reuse")
    return run_gate(probe, cases, method, **settings)


@pytest.fixture(scope="module")
def found(probe, folder):
    return decide(probe, folder)


def test_every_arm_is_there_with_at_most_the_methods_work(found):
    names = ["full", "reuse", *CONTROLS]
    assert [each.arm for each in found.arms] == names
    work = {each.arm: each.flop for each in found.arms}
    assert work["reuse"] < work["full"]
    assert all(work[name] <= work["reuse"] for name in CONTROLS)
    assert found.table["arm"].value_counts().to_dict() == dict.fromkeys(names, 3)
    assert found.scores.columns.tolist() == names


def test_fewer_steps_can_be_the_method(probe, tmp_path):
    controls = ["fewer steps", "no reference"]
    found = decide(probe, tmp_path, method="fewer-steps", computed=2, controls=controls)
    method = found.arms[1]
    assert (method.arm, method.size) == ("fewer-steps", "2 of 3 steps")
    assert method.share == pytest.approx(2 / 3)
    assert found.left_out == {"fewer steps": "it is the method itself"}
    expected = probe.generate(CASES[1].reference, "fox", steps=2, seed=1, progress=False)
    (stored,) = (tmp_path / "runs").glob("b-*-method-*.png")
    np.testing.assert_array_equal(np.asarray(Image.open(stored)), np.asarray(expected.image))


def test_the_arms_share_seed_and_noise_and_differ_as_they_say(found, probe, folder):
    runs = {
        record["key"]["arm"]: record
        for path in (folder / "runs").glob("a-*.json")
        for record in [read_sealed(path, "Record")]
    }
    assert {record["provenance"]["seed"] for record in runs.values()} == {0}
    tokens = {arm: record["values"]["reference_tokens_per_step"] for arm, record in runs.items()}
    assert tokens["full"] == [16] * 3
    assert tokens["fewer steps"] == [16] * 2
    assert set(tokens["no reference"]) == {0}
    assert tokens["random tokens"][0] == 16
    assert max(tokens["random tokens"][1:]) < 16
    assert max(tokens["smaller reference"]) == 4
    # a smaller reference is the plain pipeline with a smaller picture
    small, arguments, count = smaller_reference(probe, CASES[0], 5)
    assert (small.size, count) == ((32, 32), 4)
    plain = probe.generate(small, "fox", steps=STEPS, progress=False, **arguments).image
    (stored,) = (folder / "runs").glob("a-*smaller-reference-*.png")
    np.testing.assert_array_equal(np.asarray(plain), np.asarray(Image.open(stored)))


def test_the_verdict_is_that_of_the_test_on_the_scores(found):
    full, method = (found.scores[name].to_numpy() for name in ("full", "reuse"))
    added = (found.scores["full"] - found.scores["no reference"]).to_numpy()
    again = non_inferiority(full, method, 0.03, [3], failure=added)
    assert (found.test.loss, found.test.verdict) == (again.loss, again.verdict)
    assert found.test.failure == max(added.mean(), (full - method).max())
    assert found.verdict == "cannot tell"
    assert "fewer than 8" in found.sentence()
    assert [each.control for each in found.controls] == list(CONTROLS)


def test_the_same_call_runs_nothing_again(found, probe, folder, monkeypatch):
    monkeypatch.setattr(type(probe), "generate", None)
    said = []
    again = decide(probe, folder, announce=said.append)
    assert again.to_dict() == found.to_dict()
    assert decide(probe, folder, looks=np.int64(5)).to_dict() == found.to_dict()
    assert said[0].startswith("18 to 18 runs of about")
    assert len(said) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limit": "8%"}, "limit"),
        ({"limit": 0.030000001}, "limit"),
        ({"metric": "colour"}, "metric"),
        ({"looks": [2, 3]}, "looks"),
        ({"alpha": 0.04}, "alpha"),
        ({"controls": []}, "no_reference"),
        ({"controls": ["fewer steps"]}, "no_reference"),
        ({"seed": 3}, "order_seed"),
        ({"cases": CASES[::-1]}, "cases"),
        ({"cases": [replace(each, seed=each.seed + 1) for each in CASES]}, "cases"),
        ({"cases": [replace(each, reference=tiny.tiny_image(seed=9)) for each in CASES]}, "cases"),
        ({"cases": [replace(each, prompt="a fox") for each in CASES]}, "cases"),
    ],
)
def test_a_plan_is_not_changed_after_the_first_run(found, probe, folder, change, words):
    with pytest.raises(InputError, match=f"other settings: .*{words}"):
        decide(probe, folder, **change)
    assert decide(probe, folder).to_dict() == found.to_dict()


def test_other_controls_may_stand_beside_the_verdict(found, probe, folder):
    fewer = decide(probe, folder, controls=["no reference"])
    assert fewer.test == found.test
    assert [each.control for each in fewer.controls] == ["no reference"]


def test_a_plan_that_was_given_is_bound_by_its_work_in_every_case(probe, tmp_path):
    every = units(CASES[:2])

    def settings(plan):
        plans = GatePlans(probe, lambda case: (Keep((1, 4), 1),), steps=STEPS, plan=plan)
        return gate_settings(plans, every, [], {})

    one = settings(lambda full: full.keep(2, start=1))
    assert one == settings(lambda full: full.keep(1 + 1, start=1))
    other = settings(lambda full: full.keep(3, start=1))
    assert one["flop_of_first_case"]["method"] < other["flop_of_first_case"]["method"]
    budgets = iter([2, 2, 3])  # of the first case, and of both once more
    later = settings(lambda full: full.keep(next(budgets), start=1))
    assert later["flop_of_first_case"]["method"] == one["flop_of_first_case"]["method"]
    assert later != one

    given = {"method": [Keep((1, 4), 1)], "controls": ["no reference"]}
    decide(probe, tmp_path, plan=lambda full: full.keep(2, start=1), **given)
    with pytest.raises(InputError, match=r"other settings: flop_of_first_case\.method"):
        decide(probe, tmp_path, plan=lambda full: full.keep(3, start=1), **given)


def test_results_are_saved_with_provenance_and_shown(found, tmp_path):
    path = found.save(tmp_path)
    stored = read_sealed(path, "Gate")
    assert stored["provenance"]["fingerprint"] == found.provenance["fingerprint"]
    assert stored["verdict"] == found.summary()["verdict"]
    assert sorted(stored["provenance"]["subjects"]) == ["a", "b", "c"]
    json.dumps(found.to_dict(), allow_nan=False)
    assert len(found.rows()) == 6
    figure = found.plot()
    assert len(figure.axes) == 2
    page = write_gate_page(tmp_path / "page.html", found).read_text()
    assert "<script" not in page
    assert "http:" not in page.split("</style>")[1].split("<details>")[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "full"}, "no saving"),
        ({"method": "nothing"}, "nothing"),
        ({"method": [], "limit": 0.03}, "No interventions"),
        ({"method": "recast", "budget": 16}, "nothing to gain"),
        ({"method": "step-cache", "budget": 4}, "takes no budget"),
        ({"method": "recast", "refresh": 2}, "reuses nothing"),
        ({"method": [StepCache(threshold=0.1)]}, "plan="),
        ({"metric": "kid"}, "more is better"),
        ({"controls": ["magic"]}, "magic"),
        ({"looks": [9]}, "9"),
        ({"looks": [3, 2]}, "ascending"),
        ({"looks": []}, "ascending"),
        ({"looks": 2.5}, "2.5"),
        ({"looks": True}, "True"),
        ({"alpha": 0.9}, "0.9"),
        ({"alpha": float("nan")}, "nan"),
        ({"alpha": "5%"}, "5%"),
        ({"limit": 0}, "above 0"),
    ],
)
def test_bad_settings_are_refused_before_anything_runs(probe, tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        decide(probe, tmp_path, **change)
    # the corrected call may take the same folder
    assert not list(tmp_path.iterdir())


def test_plans_follow_from_the_settings_of_interventions():
    full = RunPlan.full(3, 16, 16, 6)
    tokens = [each.reference for each in planned(full, [Recast(4)]).steps]
    assert tokens == [16, 4, 4, 4, 4, 4]
    assert planned(full, [Recast(4)]).steps[0].read
    assert planned(full, [WithoutReference()]).steps[0].reference == 0
    both = planned(full, [Prune(rp.rank.random(16, 0), 4, 1), ReuseReference(refresh=3)])
    assert [(each.reference, each.reused) for each in both.steps] == [
        (16, False),
        (4, True),
        (4, True),
        (16, False),
        (4, True),
        (4, True),
    ]
    assert planned(full, [StepCache(3)]).computed == (0, 2, 5)


def test_a_picture_that_is_too_small_for_the_pipeline_is_no_control():
    with pytest.raises(NoControlError, match="16"):
        smaller_reference(rp.Probe.tiny("flux2-klein"), CASES[0], 3)


@pytest.mark.parametrize("family", ["flux-kontext", "flux2-klein", "qwen-image-edit"])
def test_controls_never_compute_more_than_the_method(family):
    probe, case = rp.Probe.tiny(family), Edit("large", tiny.tiny_image(128, 128))
    config, layout = config_of(probe.family.transformer), probe.layout(case.reference, "fox")
    full = full_plan(probe, case, layout, 28)
    quarter = layout.reference_tokens // 4
    for name, budget in (("reuse", None), ("recast", quarter), ("step-cache", None)):
        done = tuple(method(name, budget, layout))
        own = PlannedRun(planned(full, done), "", done)
        most = own.plan.work(config).total
        for each in CONTROLS:
            if family == "qwen-image-edit" and each == "smaller reference":
                with pytest.raises(NoControlError, match="size of its own"):
                    control(each, probe, case, config, full, own)
                continue
            found = control(each, probe, case, config, full, own)
            assert found.plan.work(config).total <= most
            # and it is no needlessly weak one: a step, or a token a step, more is too much
            if each == "fewer steps":
                more = full_plan(probe, case, layout, found.steps + 1)
                assert more.work(config).total > most
