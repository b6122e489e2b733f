"""Pruned image tokens leave the adapter's keys and values, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recast_probe import rank
from recast_probe.interventions import Prune, Recast, WithoutReference
from recast_probe.selection import Adaptive
from recast_probe.testing import tiny, tiny_ip_adapter

QUIET = {"steps": 3, "progress": False}
IMAGES = 32  # with 4 tokens each: the 128 image tokens of the paper


@pytest.fixture(scope="module")
def references():
    return [tiny.tiny_image(seed=seed) for seed in range(IMAGES)]


@pytest.fixture(scope="module")
def profile(adapter_probe, references):
    return adapter_probe.profile(references, "fox", **QUIET)


@pytest.fixture(scope="module")
def plain(adapter_probe, references):
    arguments = adapter_probe.pipeline_arguments(references, "fox", steps=3)
    return np.asarray(adapter_probe.pipe(**arguments).images[0])


def made_with(probe, references, kept, **settings):
    """The plain pipeline's image from these image tokens alone, without the probe's pruning."""
    pipe = probe.pipe
    embeddings = pipe.prepare_ip_adapter_image_embeds([references], None, "cpu", 1)
    with torch.no_grad():
        (tokens,) = pipe.transformer.encoder_hid_proj(embeddings)
    chosen = tokens.reshape(1, -1, tokens.shape[-1])[:, torch.as_tensor(kept)]
    arguments = probe.pipeline_arguments(None, "fox", steps=3, **settings)
    arguments["joint_attention_kwargs"] = {"ip_hidden_states": [chosen]}
    return np.asarray(pipe(**arguments).images[0])


def test_every_token_kept_is_the_plain_image(adapter_probe, references, profile, plain):
    ranking = rank.cross_image(profile, blocks="all")
    assert ranking.tokens == 128
    result = adapter_probe.generate(references, "fox", interventions=[Prune(ranking, 128)], **QUIET)
    np.testing.assert_array_equal(np.asarray(result.image), plain)
    assert result.reference_tokens_per_step == (128, 128, 128)


@pytest.mark.parametrize("budget", [1, 64, 127])
def test_pruned_is_the_adapter_with_those_tokens_alone(
    adapter_probe, references, profile, plain, budget
):
    ranking = rank.cross_image(profile, blocks="all")
    result = adapter_probe.generate(
        references, "fox", interventions=[Prune(ranking, budget)], **QUIET
    )
    expected = made_with(adapter_probe, references, ranking.top(budget))
    np.testing.assert_array_equal(np.asarray(result.image), expected)
    assert result.reference_tokens_per_step == (budget,) * 3
    assert (np.asarray(result.image) != plain).any()


def test_rankings_matter(adapter_probe, references, profile, plain):
    best = rank.cross_image(profile, blocks="all")

    def error(ranking):
        arguments = {"interventions": [Prune(ranking, 64)], **QUIET}
        image = adapter_probe.generate(references, "fox", **arguments).image
        return np.abs(np.asarray(image, dtype=float) - plain).mean()

    worst = error(best.reversed())
    assert error(best) != worst
    assert error(rank.random(128, 0)) != worst


def test_pruned_tokens_have_no_score(adapter_probe, references, profile):
    ranking = rank.cross_image(profile, blocks="all")
    prune = Prune(ranking, 64, start=1)
    pruned = adapter_probe.generate(
        references, "fox", interventions=[prune], profile=True, **QUIET
    ).profile
    kept = ranking.top(64)
    gone = np.setdiff1d(np.arange(128), kept)
    np.testing.assert_array_equal(pruned.score[0], profile.score[0])
    assert np.isnan(pruned.score.values[1:, ..., gone]).all()
    np.testing.assert_allclose(pruned.score.values[1:, ..., kept].sum(-1), 1, rtol=1e-5)


def test_fewer_keys_share_the_softmax_anew(adapter_probe, references, profile):
    """In the first block of a step nothing else has changed, so the shares are the old ratios."""
    kept = rank.random(128, 3).top(64)
    prune = Prune(rank.random(128, 3), 64)
    arguments = {"interventions": [prune], "profile": True, "profile_steps": 0, **QUIET}
    found = adapter_probe.generate(references, "fox", **arguments).profile
    assert found.score.values[0, 0][:, kept].sum() == pytest.approx(tiny.HEADS, rel=1e-5)
    full = profile.score.values[0, 0][:, kept]
    correlation = np.corrcoef(full[0], found.score.values[0, 0, 0, kept])[0, 1]
    assert correlation > 0.99


def test_without_reference_is_scale_zero(adapter_folders, adapter_probe, references):
    without = adapter_probe.generate(references, "fox", interventions=[WithoutReference()], **QUIET)
    silent = tiny_ip_adapter.load(adapter_folders)
    silent.set_ip_adapter_scale(0.0)
    arguments = adapter_probe.pipeline_arguments(references, "fox", steps=3)
    expected = np.asarray(silent(**arguments).images[0])
    np.testing.assert_array_equal(np.asarray(without.image), expected)
    no_image = adapter_probe.generate(None, "fox", **QUIET)
    np.testing.assert_array_equal(np.asarray(no_image.image), expected)
    assert without.reference_tokens_per_step == (0, 0, 0)
    with pytest.raises(ValueError, match="without reference tokens"):
        adapter_probe.generate(
            references, "fox", interventions=[WithoutReference()], profile=True, **QUIET
        )


def test_both_branches_are_pruned(adapter_probe, references):
    """Guidance is taken between two runs with the same places in their images' rows."""
    guided = {
        "true_cfg_scale": 2.0,
        "negative_prompt": "blurry",
        "negative_ip_adapter_image": references[1::-1],
    }
    seen = []

    def shapes(_, __, inputs):
        tokens = inputs["joint_attention_kwargs"]["ip_hidden_states"][0]
        seen.append(tokens.clone())

    blocks = adapter_probe.pipe.transformer.transformer_blocks
    hook = blocks[0].register_forward_pre_hook(shapes, with_kwargs=True)
    try:
        prune = Prune(rank.random(8, 0), 3)
        adapter_probe.generate(references[:2], "fox", interventions=[prune], **QUIET, **guided)
    finally:
        hook.remove()
    assert [tuple(tokens.shape) for tokens in seen] == [(1, 3, tiny_ip_adapter.TEXT_WIDTH)] * 6
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_recast_in_one_run(adapter_probe, references, profile):
    result = adapter_probe.recast(references, "fox", budget=Adaptive(32, 64), **QUIET)
    assert result.reference_tokens_per_step[0] == 128
    assert result.reference_tokens_per_step[1:] == tuple(
        Adaptive(32, 64).tokens_at(step, 3, None) for step in (1, 2)
    )
    np.testing.assert_array_equal(
        result.ranking.order, rank.cross_image(profile, blocks="all").order
    )
    # the same by hand
    by_hand = adapter_probe.generate(
        references,
        "fox",
        interventions=[Prune(result.ranking, Adaptive(32, 64), start=1)],
        **QUIET,
    )
    np.testing.assert_array_equal(np.asarray(by_hand.image), np.asarray(result.image))
    with pytest.raises(ValueError, match="'single' selects no block"):
        adapter_probe.generate(
            references, "fox", interventions=[Recast(64, blocks="single")], **QUIET
        )
