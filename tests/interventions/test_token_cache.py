"""Token-wise caching: the published method, and nothing left behind."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from recast_probe.errors import InputError
from recast_probe.interventions import Merge, Prune, Recast, TokenCache, WithoutReference
from recast_probe.probe import Probe
from recast_probe.runs.verification import patches
from recast_probe.runs.watching import watch_attention
from recast_probe.selection.budgets import Adaptive
from recast_probe.selection.fresh_tokens import FreshShare
from recast_probe.selection.rankings import random
from recast_probe.testing import tiny
from tests.interventions.dense_token_cache import DenseTokenCache

QUIET = {"steps": 8, "progress": False}
GUIDED = {"true_cfg_scale": 2.0, "negative_prompt": "blurry"}
# full: 0 1 2 5
CACHE = TokenCache(interval=3, fresh_share=FreshShare(0.4))
CACHED_STEPS = [3, 4, 6, 7]


def pixels(result) -> np.ndarray:
    return np.asarray(result.image).astype(int)


def latents(probe, image, interventions, prompt="fox", **settings):
    """Latents after every step, float32 (step, batch, token, width)."""
    seen = []

    def keep(pipeline, step, timestep, tensors):
        seen.append(tensors["latents"].clone())
        return tensors

    arguments = {**QUIET, "callback_on_step_end": keep, **settings}
    result = probe.generate(image, prompt, interventions=interventions, **arguments)
    return torch.stack(seen), result


@pytest.mark.parametrize(
    ("settings", "dense", "others", "arguments"),
    [
        ({}, {}, [], {}),
        ({}, {}, [WithoutReference()], {}),
        ({}, {}, [Prune(random(16, 0), 5)], {}),
        ({}, {"branches": 2}, [], GUIDED),
        ({"score": "key_norm"}, {"score": "key_norm"}, [], {}),
        ({"score": "value_norm"}, {"score": "value_norm"}, [Prune(random(16, 0), 5)], {}),
        ({"spread_bonus": 0.6, "spread_window": 2}, {"bonus": 0.6}, [], {}),
    ],
)
def test_it_is_the_published_method(probe, image, settings, dense, others, arguments):
    """The reference computes text and reference tokens as well: leaving them alone changes
    nothing."""
    cache = TokenCache(interval=3, fresh_share=FreshShare(0.4), **settings)
    found, result = latents(probe, image, [*others, cache], **arguments)
    expected, _ = latents(probe, image, [*others, DenseTokenCache(**dense)], **arguments)
    plain, _ = latents(probe, image, others, **arguments)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert (found[-1] - plain[-1]).abs().max() > 1e-3
    share = result.provenance["interventions"][-1]["run"]["fresh_generation_share"]
    assert 0 < share["double"] < share["single"] < 1


@pytest.mark.parametrize("score", TokenCache.SCORES)
@pytest.mark.parametrize("pool", TokenCache.POOLS)
def test_full_steps_are_bit_identical(probe, plain, image, score, pool):
    always = TokenCache(interval=1, score=score, pool=pool)
    result = probe.generate(image, "fox", interventions=[always], **QUIET)
    np.testing.assert_array_equal(np.asarray(result.image), plain(image, "fox", steps=8))
    assert result.provenance["interventions"][0]["run"]["computed_generation_share"] == 1
    found, _ = latents(probe, image, [TokenCache(interval=3, score=score, pool=pool)])
    expected, _ = latents(probe, image, [])
    # step 2 is full and read for the cached steps after it
    assert torch.equal(found[:3], expected[:3])
    assert not torch.equal(found[3], expected[3])


def test_more_fresh_tokens_and_shorter_intervals_come_closer(probe, plain, image):
    full = plain(image, "fox", steps=8).astype(int)

    def distance(**settings) -> float:
        cache = TokenCache(pool="generation", first_full=1, **settings)
        result = probe.generate(image, "fox", interventions=[cache], **QUIET)
        return float(np.abs(pixels(result) - full).mean())

    by_interval = [distance(interval=interval, fresh_share=0.25) for interval in (2, 4, 8)]
    assert 0 < by_interval[0] < by_interval[1] < by_interval[2]
    by_share = [distance(interval=8, fresh_share=share) for share in (1.0, 0.0)]
    assert by_share[0] < by_share[1]


def test_reference_tokens_of_cached_steps_do_not_matter(probe, image):
    """Token counts may change in every step, as with a growing budget."""
    pruned = Prune(random(16, 0), Adaptive(2, 12), start=3)
    growing = probe.generate(image, "fox", interventions=[pruned, CACHE], **QUIET)
    counts = growing.reference_tokens_per_step
    assert counts[3] < counts[7]

    class OnlyInFullSteps(Prune):
        def reference_tokens(self, step):
            if step.step in CACHED_STEPS:
                return np.array([15])
            return super().reference_tokens(step)

    other = OnlyInFullSteps(random(16, 0), Adaptive(2, 12), start=3)
    result = probe.generate(image, "fox", interventions=[other, CACHE], **QUIET)
    assert result.reference_tokens_per_step[3] == 1
    np.testing.assert_array_equal(pixels(result), pixels(growing))
    unpruned = probe.generate(image, "fox", interventions=[CACHE], **QUIET)
    assert np.abs(pixels(unpruned) - pixels(growing)).max() > 0


def test_recast_profiles_a_full_step(probe, image):
    alone = probe.generate(image, "fox", interventions=[Recast(4)], **QUIET)
    for interventions in ([Recast(4), CACHE], [CACHE, Recast(4)]):
        both = probe.generate(image, "fox", interventions=interventions, **QUIET)
        np.testing.assert_array_equal(both.ranking.order, alone.ranking.order)
        assert both.reference_tokens_per_step == (16, *[4] * 7)
        assert np.abs(pixels(both) - pixels(alone)).max() > 0
    # step 2 is recorded by one and read by the other
    third = probe.generate(image, "fox", interventions=[Recast(4, profile_step=2), CACHE], **QUIET)
    expected = probe.profile(image, "fox", blocks="paper", profile_steps=2, **QUIET)
    np.testing.assert_array_equal(third.profile.dataset["score"], expected.dataset["score"])


def test_attention_of_cached_steps_cannot_be_recorded(probe, plain, image):
    with pytest.raises(InputError, match=r"steps \[3, 4, 6, 7\].*TokenCache"):
        probe.generate(image, "fox", interventions=[CACHE], profile=True, **QUIET)
    late = Recast(4, profile_step=3)
    with pytest.raises(InputError, match=r"steps \[3\]"):
        probe.generate(image, "fox", interventions=[late, CACHE], **QUIET)
    recorded = {"profile": True, "profile_steps": [1, 2], "heads": [1], "blocks": [0, 4]}
    result = probe.generate(image, "fox", interventions=[CACHE], **recorded, **QUIET)
    expected = probe.generate(image, "fox", **recorded, **QUIET)
    for name in ("score", "mass", "conditional_entropy"):
        np.testing.assert_array_equal(
            result.profile.dataset[name], expected.profile.dataset[name], err_msg=name
        )


def test_merged_tokens_have_no_attention_to_read(probe, image):
    merged = Merge(8)
    with pytest.raises(
        InputError, match=r"TokenCache works in the blocks in steps \[2, 5\].*Merge"
    ):
        probe.generate(image, "fox", interventions=[merged, CACHE], **QUIET)
    free = TokenCache(interval=3, score="value_norm")
    result = probe.generate(image, "fox", interventions=[merged, free], **QUIET)
    assert result.reference_tokens_per_step == (8,) * 8


def test_no_attention_is_computed_in_cached_steps(probe, pipeline, image):
    calls = []
    cache = TokenCache(interval=3, score="random")
    with watch_attention(pipeline.transformer, lambda call, number, _: calls.append(call)):
        result = probe.generate(image, "fox", interventions=[cache], **QUIET)
    assert calls == [step for step in (0, 1, 2, 5) for _ in range(tiny.BLOCKS)]
    run = result.provenance["interventions"][0]["run"]
    assert run["full_steps"] == [0, 1, 2, 5]


def test_both_branches_have_caches_of_their_own(probe, image):
    both = probe.generate(image, "fox", interventions=[CACHE], **GUIDED, **QUIET)
    one = probe.generate(image, "fox", interventions=[CACHE], **QUIET)
    assert np.abs(pixels(both) - pixels(one)).max() > 0
    always = TokenCache(interval=1)
    full = probe.generate(image, "fox", interventions=[always], **GUIDED, **QUIET)
    plain = probe.generate(image, "fox", **GUIDED, **QUIET)
    np.testing.assert_array_equal(pixels(full), pixels(plain))


def test_prompts_of_a_batch_do_not_mix(probe, image):
    together = probe.generate(image, ["fox", "snow"], interventions=[CACHE], **QUIET)
    for prompt, found in zip(("fox", "snow"), together.images, strict=True):
        alone = probe.generate(image, prompt, interventions=[CACHE], **QUIET)
        # batched kernels round differently
        assert np.abs(np.asarray(found).astype(int) - pixels(alone)).max() <= 1


def test_the_same_object_serves_any_number_of_runs(probe, image):
    first = probe.generate(image, "fox", interventions=[CACHE], **QUIET)
    probe.generate(tiny.tiny_image(seed=3), "snow", interventions=[CACHE], **QUIET)
    again = probe.generate(image, "fox", interventions=[CACHE], **QUIET)
    np.testing.assert_array_equal(pixels(first), pixels(again))
    random_caches = [TokenCache(score="random", seed=seed) for seed in (0, 0, 1)]
    drawn = [
        pixels(probe.generate(image, "fox", interventions=[cache], **QUIET))
        for cache in random_caches
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.abs(drawn[0] - drawn[2]).max() > 0


def test_the_pipeline_is_as_it_was(probe, pipeline, image):
    before = patches(pipeline.transformer)
    names = {name: sorted(vars(part)) for name, part in pipeline.transformer.named_modules()}
    probe.generate(image, "fox", interventions=[CACHE], **QUIET)

    def fail(*_):
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        probe.generate(image, "fox", interventions=[CACHE], callback_on_step_end=fail, **QUIET)
    with pytest.raises(InputError, match="TokenCache and TokenCache"):
        probe.generate(image, "fox", interventions=[CACHE, CACHE], **QUIET)
    assert patches(pipeline.transformer) == before
    assert names == {
        name: sorted(vars(part)) for name, part in pipeline.transformer.named_modules()
    }


def test_what_was_done_is_on_record(probe, image):
    recorded = {"profile": True, "profile_steps": 0}
    result = probe.generate(image, "fox", interventions=[CACHE], **recorded, **QUIET)
    record = json.loads(json.dumps(result.provenance["interventions"][0]))
    run = record.pop("run")
    assert record == json.loads(json.dumps(CACHE.describe()))
    assert record["name"] == "TokenCache"
    assert record["fresh_share"] == {
        "mean": 0.4,
        "layer_slope": 0.5,
        "stream_slope": 0.6,
        "step_slope": 0.0,
    }
    assert run["full_steps"] == [0, 1, 2, 5]
    shares = run["computed_generation_share_per_step"]
    assert [step for step, share in enumerate(shares) if share < 1] == CACHED_STEPS
    assert run["computed_generation_share"] == pytest.approx(np.mean(shares))
    assert result.profile.provenance["interventions"][0]["run"] == run


def test_the_share_is_exact_among_generation_tokens(probe, image):
    cache = TokenCache(interval=3, fresh_share=0.25, pool="generation")
    result = probe.generate(image, "fox", interventions=[cache], **QUIET)
    run = result.provenance["interventions"][0]["run"]
    assert run["fresh_generation_share"] == {"double": 0.25, "single": 0.25}
    assert run["computed_generation_share"] == (4 + 4 * 0.25) / 8


def test_other_weights_and_layouts(tiny_folder, image):
    probe = Probe.from_pretrained(tiny_folder)
    expected = latents(probe, image, [TokenCache(interval=3, score="key_norm")])[0]
    probe.pipe.transformer.fuse_qkv_projections()
    fused = latents(probe, image, [TokenCache(interval=3, score="key_norm")])[0]
    np.testing.assert_allclose(fused, expected, atol=1e-4)
    half = Probe.from_pretrained(tiny_folder, dtype="bfloat16")
    wide = {"height": 32, "width": 128}
    result = half.generate(
        tiny.tiny_image(96, 48), "fox", interventions=[CACHE], seed=1, **wide, **QUIET
    )
    assert np.isfinite(pixels(result)).all()
    assert half.generate(None, "fox", interventions=[CACHE], **QUIET).images


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval": 0}, "interval must be a whole number of at least 1, not 0"),
        ({"interval": 2.5}, "2.5"),
        ({"first_full": 0}, "first_full"),
        ({"fresh_share": 1.5}, "between 0 and 1, not 1.5"),
        ({"score": "attn"}, "'attn'"),
        ({"pool": "all"}, "'all'"),
        ({"interval_slope": 1.0}, "interval_slope"),
        ({"age_weight": -1.0}, "age_weight must not be negative"),
        ({"spread_bonus": float("nan")}, "nan"),
        ({"spread_window": 0}, "spread_window"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        TokenCache(**settings)
