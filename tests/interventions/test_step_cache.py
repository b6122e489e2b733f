"""Skipped steps: which they are, what stands in for them, and nothing left behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recast_probe.errors import InputError
from recast_probe.interventions import (
    Prune,
    Recast,
    ReuseReference,
    StepCache,
    TokenCache,
)
from recast_probe.runs.verification import patches
from recast_probe.selection.budgets import Adaptive
from recast_probe.selection.rankings import random
from recast_probe.testing import tiny

QUIET = {"steps": 8, "progress": False}
GUIDED = {"true_cfg_scale": 2.0, "negative_prompt": "blurry"}


def run(probe, image, *interventions, **settings):
    return probe.generate(image, "fox", interventions=interventions, **{**QUIET, **settings})


def pixels(result) -> np.ndarray:
    return np.asarray(result.image).astype(int)


def computed(result) -> dict:
    return result.provenance["interventions"][-1]["run"]["computed_steps"]


@given(st.integers(1, 60), st.data())
def test_computed_steps_are_even_and_hold_what_is_demanded(steps, data):
    demanded = data.draw(st.sets(st.integers(0, steps - 1), max_size=4))
    least = len(demanded | {0, steps - 1})
    count = data.draw(st.integers(least, steps))
    found = StepCache(count).computed_steps(steps, frozenset(demanded))
    assert len(found) == count
    assert demanded | {0, steps - 1} <= set(found)
    if not demanded and count > 1:
        assert np.ptp(np.diff(found)) <= 1


def test_with_everything_computed_it_is_the_plain_image(probe, plain, image):
    wanted = plain(image, "fox", steps=8)
    for cache in (StepCache(), StepCache(8), StepCache(range(8)), StepCache(threshold=1e-9)):
        result = run(probe, image, cache)
        np.testing.assert_array_equal(np.asarray(result.image), wanted)
        assert computed(result) == {"conditional": list(range(8))}


@pytest.mark.parametrize("extrapolate", [False, True])
def test_skipped_steps_take_the_last_velocity_or_its_line(probe, pipeline, image, extrapolate):
    """The scheduler is Euler's, so velocities can be read from the latents."""
    before, latents = patches(pipeline.transformer), []

    def keep(pipeline, step, timestep, tensors):
        latents.append(tensors["latents"].double())
        return tensors

    cache = StepCache([0, 2, 5, 7], extrapolate=extrapolate)
    assert computed(run(probe, image, cache, callback_on_step_end=keep)) == {
        "conditional": [0, 2, 5, 7]
    }
    sigmas = pipeline.scheduler.sigmas.double()
    velocity = {
        step: (latents[step] - latents[step - 1]) / (sigmas[step + 1] - sigmas[step])
        for step in range(1, 8)
    }
    for skipped, last, earlier in ((3, 2, None), (4, 2, None), (6, 5, 2)):
        wanted = velocity[last]
        if extrapolate and earlier is not None:
            way = (sigmas[skipped] - sigmas[last]) / (sigmas[last] - sigmas[earlier])
            wanted = wanted + way * (velocity[last] - velocity[earlier])
        if not extrapolate or earlier is not None:
            torch.testing.assert_close(velocity[skipped], wanted, atol=2e-4, rtol=1e-4)
    assert patches(pipeline.transformer) == before
    assert len(pipeline.transformer.transformer_blocks) == tiny.DOUBLE_BLOCKS


def test_holding_a_velocity_is_taking_longer_steps(probe, image):
    steps = [0, 2, 5, 7]
    held = run(probe, image, StepCache(steps))
    sigmas = np.linspace(1.0, 1 / 8, 8)[steps].tolist()
    longer = run(probe, image, steps=4, sigmas=sigmas)
    assert np.abs(pixels(held) - pixels(longer)).max() <= 1
    assert np.abs(pixels(held) - pixels(run(probe, image))).max() > 5


def test_a_larger_threshold_computes_fewer_steps(probe, image):
    counts = [
        len(computed(run(probe, image, StepCache(threshold=threshold)))["conditional"])
        for threshold in (1e-9, 0.3, 0.6, 100.0)
    ]
    assert counts[0] == 8
    assert counts[-1] == 2
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) > 2


def test_it_goes_with_changing_token_counts_and_with_reuse(probe, image):
    budget = Adaptive(3, 9)
    pruned = run(probe, image, Prune(random(16, 0), budget, start=1), StepCache(5))
    assert pruned.reference_tokens_per_step[1] < pruned.reference_tokens_per_step[7]
    reused = run(probe, image, Recast(budget), ReuseReference(refresh=[3]), StepCache(5))
    # the step that stores is one of the five
    assert computed(reused) == {"conditional": [0, 3, 4, 5, 7]}
    assert np.abs(pixels(pruned) - pixels(reused)).max() > 0


def test_branches_and_images_share_nothing(probe, image):
    cache, other = StepCache(threshold=0.3), tiny.tiny_image(seed=5)
    alone = run(probe, other, cache, **GUIDED)
    run(probe, image, cache)
    again = run(probe, other, cache, **GUIDED)
    np.testing.assert_array_equal(pixels(again), pixels(alone))
    assert set(computed(again)) == {"conditional", "unconditional"}


def test_an_error_in_a_skipped_step_leaves_the_model_whole(probe, pipeline, image):
    def fail(pipeline, step, timestep, tensors):
        if step == 1:
            raise RuntimeError("stop here")
        return tensors

    before = patches(pipeline.transformer)
    with pytest.raises(RuntimeError, match="stop here"):
        run(probe, image, StepCache(2), callback_on_step_end=fail)
    assert patches(pipeline.transformer) == before
    assert len(pipeline.transformer.single_transformer_blocks) == tiny.SINGLE_BLOCKS


def test_what_cannot_be(probe, image):
    with pytest.raises(InputError, match="either computed steps or a threshold"):
        StepCache(4, 0.1)
    with pytest.raises(InputError, match="threshold must be a number above 0"):
        StepCache(threshold=0.0)
    with pytest.raises(InputError, match="computed=9 does not fit this run"):
        run(probe, image, StepCache(9))
    with pytest.raises(InputError, match="holds 8"):
        run(probe, image, StepCache([2, 8]))
    with pytest.raises(InputError, match=r"Steps \[3\] are read or stored"):
        run(probe, image, Recast(4, profile_step=3), StepCache([1, 2]))
    with pytest.raises(InputError, match="of its 8 steps"):
        run(probe, image, StepCache(4), profile=True)
    with pytest.raises(InputError, match="skip the work of one run twice"):
        run(probe, image, StepCache(4), TokenCache())
