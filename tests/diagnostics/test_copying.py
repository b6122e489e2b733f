"""Copying and broadcasting heads that are planted, and the features of heads."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from recast_probe.diagnostics import reading, spearman_interval
from recast_probe.diagnostics.copying import copy_heads
from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles.profile import AttentionProfile


def profile(queries: str = "generation") -> AttentionProfile:
    """16 places: head 0 copies, head 1 broadcasts, head 2 looks at one token, head 3 hardly."""
    uniform, one = np.full(16, 1 / 16), np.eye(16)[3]
    score = np.stack([0.5 * uniform, 0.5 * uniform, 0.5 * one, 0.01 * uniform])
    conditional = np.array([0.5, 4, 0, 0])
    return AttentionProfile.build(
        score=np.broadcast_to(score, (1, 2, 1, 4, 16)),
        mass=np.full((1, 2, 1, 4, 3, 3), 1 / 3),
        conditional_entropy=np.full((1, 2, 1, 4), 4.0),
        mass_weighted_conditional_entropy=np.broadcast_to(conditional, (1, 2, 1, 4)),
        steps=[0, 1],
        timesteps=[1000, 500],
        sigmas=[1, 0.5],
        blocks=[2],
        block_kinds=["single"] * 3,
        heads=range(4),
        layout=TokenLayout(1, Grid(4, 4), (Grid(4, 4),)),
        queries=queries,
    )


def test_the_planted_head_copies():
    found = copy_heads(profile())
    np.testing.assert_allclose(found.information[0], [3.5, 0, 0, 4], atol=1e-6)
    np.testing.assert_allclose(found.mass[0], [0.5, 0.5, 0.5, 0.01], rtol=1e-6)
    assert found.heads == ((2, 0),)
    assert copy_heads(profile(), min_mass=0).heads == ((2, 3), (2, 0))
    assert copy_heads(profile(), threshold=0.9).heads == ()
    assert found.maximum == 4
    assert found.summary()["copy_heads"] == 1
    with pytest.raises(InputError, match="threshold must lie from 0 to 1"):
        copy_heads(profile(), threshold=2)
    with pytest.raises(InputError, match="of text tokens"):
        copy_heads(profile("text"))


def test_reading_has_skew_and_entropy_of_every_head():
    found = reading(profile())
    np.testing.assert_allclose(found["top_share"][0], [0.25, 0.25, 1, 0.25], rtol=1e-6)
    np.testing.assert_allclose(found["gini"][0], [0, 0, 15 / 16, 0], atol=1e-6)
    np.testing.assert_allclose(found["marginal_entropy"][0], [4, 4, 0, 4], atol=1e-6)
    np.testing.assert_allclose(found["information"][0], [3.5, 0, 0, 4], atol=1e-6)


def test_spearman_with_interval():
    rng = np.random.default_rng(0)
    a = rng.normal(size=40)
    b = a + rng.normal(size=40)
    found = spearman_interval(a, b)
    assert found.mean == pytest.approx(stats.spearmanr(a, b).statistic)
    assert -1 <= found.low < found.mean < found.high <= 1
    exact = spearman_interval(np.arange(5), np.arange(5) ** 2)
    assert exact.mean == pytest.approx(1)
    assert str(exact) == "1.000 [cannot tell, n=5]"
    assert np.isnan(spearman_interval(np.ones(5), np.arange(5)).mean)
    assert np.isnan(spearman_interval([1, 2, 3], [3, 2, 1]).low)
    with pytest.raises(InputError, match="two or more pairs"):
        spearman_interval([1.0], [2.0])


def test_the_interval_holds_the_true_correlation_about_as_often_as_it_says():
    rng, held = np.random.default_rng(1), 0
    for _ in range(200):
        found = spearman_interval(*rng.normal(size=(2, 32)))
        held += found.low <= 0 <= found.high
    assert 184 <= held <= 198


def test_heads_of_one_block_do_not_count_as_independent():
    """8 blocks of 4 heads that share most of what they are: whole blocks are left out."""
    rng, together, alone = np.random.default_rng(2), 0, 0
    block = np.repeat(np.arange(8), 4)
    for _ in range(200):
        a, b = 0.8 * rng.normal(size=(2, 8, 1)) + 0.6 * rng.normal(size=(2, 8, 4))
        found = spearman_interval(a, b, block)
        assert found.count == 8
        together += found.low <= 0 <= found.high
        plain = spearman_interval(a, b)
        alone += plain.low <= 0 <= plain.high
    assert together >= 184
    assert alone <= 176
    with pytest.raises(InputError, match="as many groups"):
        spearman_interval([1.0, 2, 3], [1.0, 2, 4], [1])
