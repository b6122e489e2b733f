"""One way to say a budget: every face takes every form, and means the same tokens by it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import recast_probe as rp
from recast_probe.budget import PaperSchedule, Share, as_budget, budget_of
from recast_probe.cost_model.plan import RunPlan
from recast_probe.cost_model.plan_parser import planned
from recast_probe.errors import InputError
from recast_probe.interventions import Keep, Merge
from recast_probe.testing import tiny

# of 16 reference tokens, in steps 0 to 2
FORMS = [
    (4, (4, 4, 4)),
    (np.int32(4), (4, 4, 4)),
    ("4", (4, 4, 4)),
    (0.25, (4, 4, 4)),
    (np.float32(0.25), (4, 4, 4)),
    ("0.25", (4, 4, 4)),
    ("25%", (4, 4, 4)),
    ("100 %", (16, 16, 16)),
    ("eq4", (1, 2, 4)),
    ("eq4:2:8", (2, 4, 8)),
    ("eq4:2:8:1", (2, 5, 8)),
    (rp.Fixed(4), (4, 4, 4)),
    (rp.Adaptive(2, 8), (2, 4, 8)),
    (Share(0.25), (4, 4, 4)),
]


@pytest.mark.parametrize(("said", "tokens"), FORMS, ids=lambda value: str(value)[:40])
def test_every_face_means_the_same_tokens(probe, image, said, tokens):
    assert tuple(budget_of(said, 16).schedule(3)) == tokens
    ranking = rp.rank.random(16, seed=0)
    held = rp.Prune(ranking, said).budget
    assert tuple(held.schedule(3)) == tokens, "shares are held as tokens"
    if isinstance(said, str):
        word = said if said.startswith("eq4") else f"prune={said}"
        plan = planned(RunPlan.full(12, 16, 16, 3), [word])
        assert tuple(step.reference for step in plan.steps) == (16, *tokens[1:])


@pytest.mark.parametrize("said", ["25%", 0.25, "eq4:2:4"])
def test_runs_keep_what_was_said(probe, image, said):
    expected = (16, *budget_of(said, 16).schedule(3)[1:])
    settings = {"steps": 3, "progress": False}
    made = probe.recast(image, "a", budget=said, **settings)
    assert made.reference_tokens_per_step == expected
    stored = made.provenance["interventions"][0]["budget"]
    assert stored["name"] in ("Fixed", "Adaptive"), "provenance is in tokens"
    for intervention in (
        rp.Prune(rp.rank.random(16, seed=0), said, start=1),
        Merge(said, start=1),
    ):
        made = probe.generate(image, "a", interventions=[intervention], **settings)
        assert made.reference_tokens_per_step == expected
    pipe = tiny.build_tiny_pipeline()
    with rp.accelerate(pipe, method="uniform", budget=said) as accelerated:
        size = {"height": 64, "width": 64, "max_area": 64 * 64, "_auto_resize": False}
        pipe(image=image, prompt="a", num_inference_steps=3, **size)
        assert accelerated.report["reference_tokens_per_step"] == list(expected)


def test_without_a_budget_it_is_the_papers(probe, image):
    settings = {"steps": 3, "progress": False}
    said, unsaid = (probe.recast(image, "a", budget=each, **settings) for each in ("eq4", None))
    assert said.reference_tokens_per_step == unsaid.reference_tokens_per_step == (16, 2, 4)
    assert as_budget("eq4") == PaperSchedule()
    assert as_budget("eq4:sigma").of(256) == rp.Adaptive(16, 64, 2.0, "sigma")
    assert as_budget("eq4:2:8:3:sigma") == rp.Adaptive(2, 8, 3.0, "sigma")


@given(st.integers(1, 10**6), st.integers(1, 100))
def test_a_percentage_is_the_share(tokens, percent):
    assert budget_of(f"{percent}%", tokens) == budget_of(percent / 100, tokens)
    assert budget_of(f"{percent}%", tokens).tokens == max(1, (2 * percent * tokens + 100) // 200)


REFUSED: list = ["", "x", "0", 0, -3, "-3", 0.0, 1.5, 64.0, "64.0", "0%", "101%", "1e3", "٣"]
REFUSED += ["eq4:", "eq4:4", "eq4:8:4", "eq4:0:4", "eq4:1:2:0", "eq4:1:2:3:4", "eq4:a:b", "nan"]
REFUSED += [True, None, float("nan"), [4], (1, 2), b"4", "25 tokens", Share]


@pytest.mark.parametrize("said", REFUSED)
def test_everything_else_is_refused(said):
    with pytest.raises(InputError):
        budget_of(said, 16)
    with pytest.raises(InputError):
        rp.Prune(rp.rank.random(16, seed=0), said)
    with pytest.raises(InputError):
        Merge(said)


def test_schedules_take_tokens_and_ask_for_the_rest():
    assert rp.budget.flat(4, 3).tokens == (4, 4, 4)
    assert rp.budget.inverted("eq4:2:8", 3).tokens == (8, 4, 2)
    with pytest.raises(InputError, match="of how many"):
        rp.budget.inverted("25%", 3)


def test_tokens_that_are_named_are_no_budget(probe, image):
    for budget in (64, 0.25, "25%", rp.Fixed(4)):
        with pytest.raises(InputError, match="Prune"):
            Keep(budget)
    mask = np.zeros(16, bool)
    mask[[2, 5]] = True
    with pytest.raises(InputError, match="flatnonzero"):
        Keep(mask)
    assert Keep(np.array([5, 2])) == Keep((2, 5))
    assert Keep(()).tokens == ()


@pytest.mark.parametrize("given", [np.arange(16), list(range(16)), "cosine", None, 64])
def test_pruning_needs_a_ranking_at_once(given):
    with pytest.raises(InputError, match=r"rp\.rank"):
        rp.Prune(given, 4)


def test_what_has_a_ranking_is_named(probe, image):
    made = probe.recast(image, "a", budget=4, steps=2, progress=False)
    with pytest.raises(InputError, match=r"result\.ranking"):
        rp.Prune(made, 4)
    with pytest.raises(InputError, match=r"cross_image\(profile\)"):
        rp.Prune(made.profile, 4)
