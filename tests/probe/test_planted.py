"""Attention planted by hand in the weights comes back out of the diagnostics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recast_probe import budget, rank
from recast_probe.diagnostics.entropy import entropy
from recast_probe.diagnostics.overlap import overlap
from recast_probe.diagnostics.skew import skew
from recast_probe.diagnostics.stability import stability
from recast_probe.probe import Probe
from recast_probe.selection.rankings import cross_image
from recast_probe.testing import tiny
from recast_probe.testing.planted_attention import (
    FAST,
    LOGIT,
    blocks,
    plant_queries,
    plant_targets,
    still,
)

TARGET = np.zeros((4, 4), dtype=bool)
TARGET[1:3, 2:4] = True


@pytest.fixture(scope="module")
def planted(image):
    pipe = tiny.build_tiny_pipeline(seed=3)
    plant_targets(pipe, image, TARGET)
    return Probe(pipe)


@pytest.fixture(scope="module")
def profiles(planted, image):
    return [planted.profile(image, "fox", steps=3, seed=seed, progress=False) for seed in (0, 1, 2)]


def planted_distribution() -> np.ndarray:
    weight = np.exp(np.where(TARGET.reshape(-1), LOGIT, -LOGIT))
    return weight / weight.sum()


def test_the_scores_are_planted(profiles):
    expected = planted_distribution()
    for profile in profiles:
        scores = profile.dataset["score"]
        normalised = scores / scores.sum("token")
        # the slowest rotary pair still turns by up to 0.006 radians
        np.testing.assert_allclose(
            normalised, np.broadcast_to(expected, normalised.shape), rtol=2e-4
        )


def test_skew(profiles):
    found = skew(profiles[0], fraction=0.25)
    share = planted_distribution()[TARGET.reshape(-1)].sum()
    assert found.top_share_of_mean_score == pytest.approx(share, rel=1e-3)
    assert found.mean_of_block_top_shares == pytest.approx(share, rel=1e-3)


def test_entropy(profiles):
    """All queries look the same way, so both entropies are equal and share no information."""
    distribution = planted_distribution()
    bits = -(distribution * np.log2(distribution)).sum()
    found = entropy(profiles[0])
    np.testing.assert_allclose(found.marginal, bits, atol=1e-3)
    np.testing.assert_allclose(found.conditional, bits, atol=1e-3)
    np.testing.assert_allclose(found.mutual_information, 0, atol=1e-3)
    assert found.maximum == 4


def test_overlap(profiles):
    found = overlap(profiles[0], TARGET, fraction=0.25)
    share = planted_distribution()[TARGET.reshape(-1)].sum()
    assert found.auroc == 1
    assert found.precision_at_k == 1
    assert found.iou_at_k == 1
    assert found.mass_share == pytest.approx(share, rel=1e-3)
    assert found.enrichment == pytest.approx(share / 0.25, rel=1e-3)
    # the other way round
    wrong = overlap(profiles[0], ~TARGET, fraction=0.25)
    assert wrong.auroc == 0
    assert wrong.precision_at_k == 0


def test_stability(profiles):
    """The planted ranking has two levels; all runs have the same top quarter."""
    assert stability(profiles, fraction=0.25).mean_jaccard.mean == 1
    ranking = cross_image(profiles[0], blocks="all", steps=0)
    np.testing.assert_array_equal(ranking.top(4), np.flatnonzero(TARGET))


@pytest.mark.parametrize("ranking", ["cross-image", "self-attention", "cosine"])
def test_runs_rank_themselves_as_planted(planted, image, ranking):
    """All queries look alike, so reference tokens look where generation tokens do. Hidden states
    are plus or minus one direction, so cosines are plus or minus 1."""
    quiet = {"steps": 3, "progress": False}
    found = planted.recast(image, "fox", budget=4, blocks="all", ranking=ranking, **quiet).ranking
    score = found.score.reshape(4, 4)
    if ranking == "cosine":
        np.testing.assert_allclose(np.abs(score), 1, atol=1e-3)
        sign = np.sign(score[TARGET]).mean()
        np.testing.assert_allclose(score, sign * np.where(TARGET, 1, -1), atol=1e-3)
        found = found if sign > 0 else found.reversed()
    else:
        ratio = score[TARGET].mean() / score[~TARGET].mean()
        assert ratio == pytest.approx(np.exp(2 * LOGIT), rel=1e-3)
    np.testing.assert_array_equal(found.top(4), np.flatnonzero(TARGET))
    again = planted.recast(image, "fox", budget=4, blocks=3, ranking=ranking, every=2, **quiet)
    assert set(again.ranking.top(4)) in (set(found.top(4)), set(found.reversed().top(4)))


def test_single_blocks_and_budgets_by_mass_as_planted(profiles):
    inside = TARGET.reshape(-1)
    found = rank.single_blocks(profiles[0], lambda ranking: inside[ranking.top(4)].mean())
    assert set(found.values.values()) == {1.0}
    share = planted_distribution()[inside].sum()
    ranking = cross_image(profiles[0], blocks="all")
    assert budget.mass_threshold(ranking, share - 1e-3) == 4
    assert budget.mass_threshold(ranking, share + 1e-3) == 5
    flat = budget.entropy_matched(profiles[0], 30, blocks="all")
    assert flat.tokens == (10, 10, 10)


def test_attention_without_any_use_has_no_effect(planted, image):
    """Gates are shut: tokens are looked at, but nothing of them reaches the image."""
    ranking = rank.causal_oracle(
        planted, image, "fox", lambda made: float(np.mean(made)), steps=2, progress=False
    )
    np.testing.assert_allclose(ranking.details["effects"], 0, atol=1e-3)


def test_positions_planted_in_the_rotary_embedding(image):
    """Keys equal to queries in the fastest rotary pairs: each token looks at its own place.

    The logit is LOGIT / 2 * (cos(row difference) + cos(column difference)) for every pair of image
    tokens, so both entropies and the mutual information follow.
    """
    pipe = tiny.build_tiny_pipeline(seed=3)
    still(pipe.transformer)
    logit = 4.0
    with torch.no_grad():
        for block in blocks(pipe.transformer):
            plant_queries(block.attn, tiny.HEADS, logit, FAST)
            for name, norm in (("to_k", "norm_k"), ("add_k_proj", "norm_added_k")):
                projection = getattr(block.attn, name, None)
                if projection is not None:
                    projection.weight.zero_()
                    vector = torch.zeros(tiny.HEAD_DIMENSION)
                    vector[list(FAST)] = 1.0
                    projection.bias.copy_(vector.repeat(tiny.HEADS))
                    getattr(block.attn, norm).weight.fill_(1.0)
    profile = Probe(pipe).profile(image, "fox", steps=1, progress=False)
    rows, columns = np.divmod(np.arange(16), 4)
    logits = np.cos(rows[:, None] - rows) + np.cos(columns[:, None] - columns)
    text = np.cos(rows) + np.cos(columns)
    weights = np.exp(logit / 2 * logits)
    row_sums = 2 * weights.sum(1) + tiny.TEXT_TOKENS * np.exp(logit / 2 * text)
    scores = (weights / row_sums[:, None]).mean(0)
    np.testing.assert_allclose(
        profile.score, np.broadcast_to(scores, profile.score.shape), rtol=1e-4
    )
    probability = weights / weights.sum(1, keepdims=True)
    each = -(probability * np.log2(probability)).sum(1)
    mass = weights.sum(1) / row_sums
    conditional, weighted = each.mean(), (mass * each).sum() / mass.sum()
    mean = scores / scores.sum()
    marginal = -(mean * np.log2(mean)).sum()
    found = entropy(profile)
    np.testing.assert_allclose(found.conditional, conditional, atol=1e-3)
    np.testing.assert_allclose(found.marginal, marginal, atol=1e-3)
    np.testing.assert_allclose(found.mutual_information, marginal - weighted, atol=1e-3)
    assert marginal - weighted > 0.2
    assert abs(weighted - conditional) > 0.01


def test_random_weights_and_shuffled_masks_show_nothing(probe, image):
    """The null control: what is found where there is nothing to find."""
    profile = probe.profile(image, "fox", steps=2, progress=False)
    generator = np.random.default_rng(0)
    aurocs, enrichments = [], []
    for _ in range(400):
        mask = generator.permutation(TARGET.reshape(-1)).reshape(4, 4)
        found = overlap(profile, mask, null_draws=0)
        aurocs.append(found.auroc)
        enrichments.append(found.enrichment)
    for values, expected in ((aurocs, 0.5), (enrichments, 1.0)):
        error = np.std(values) / np.sqrt(len(values))
        assert abs(np.mean(values) - expected) < 4 * error
        assert np.std(values) > 0
