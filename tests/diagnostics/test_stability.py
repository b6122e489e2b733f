"""Agreement of rankings: planted agreement, its interval, and comparisons that mean nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recast_probe.diagnostics import stability, stability_over
from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.testing.planted_profiles import planted

RISING = np.arange(1.0, 17.0)


def noisy(count: int, noise: float, seed: int = 0) -> list:
    rng = np.random.default_rng(seed)
    return [planted(np.abs(RISING + noise * rng.normal(size=16))) for _ in range(count)]


def test_equal_and_opposite_rankings():
    found = stability([planted(RISING), planted(RISING**2), planted(RISING[::-1])], ["a", "b", "c"])
    np.testing.assert_allclose(found.spearman.sel(a="a"), [1, 1, -1])
    np.testing.assert_allclose(found.kendall.sel(a="a"), [1, 1, -1])
    np.testing.assert_allclose(found.jaccard.sel(a="a"), [1, 1, 0])
    assert float(found.rank_biased_overlap.sel(a="a", b="b")) == pytest.approx(1)
    assert float(found.rank_biased_overlap.sel(a="a", b="c")) < 0.2
    assert found.mean_spearman.mean == pytest.approx(-1 / 3)
    assert found.summary()["spearman"] == pytest.approx(-1 / 3)


def test_more_noise_means_less_agreement_with_every_measure():
    levels = [stability(noisy(6, noise)).summary() for noise in (0.1, 2, 20)]
    for name in levels[0]:
        assert levels[0][name] > levels[1][name] > levels[2][name], name


def test_the_interval_covers_the_agreement_of_many():
    truth = stability(noisy(120, 3)).mean_spearman.mean
    covered = 0
    for seed in range(40):
        interval = stability(noisy(12, 3, seed=seed + 1)).mean_spearman
        assert interval.low <= interval.mean <= interval.high
        covered += interval.low <= truth <= interval.high
    assert covered >= 34


def test_two_rankings_have_no_interval():
    with pytest.warns(UserWarning, match="one pair"):
        found = stability(noisy(2, 1))
    assert math.isnan(found.mean_spearman.low)
    assert not math.isnan(found.mean_spearman.mean)


def test_constant_scores_agree_with_nothing():
    with pytest.warns(UserWarning, match="All scores are equal in flat"):
        found = stability([*noisy(2, 1), planted(np.ones(16))], ["a", "b", "flat"])
    for name in ("spearman", "kendall", "jaccard", "rank_biased_overlap"):
        matrix = getattr(found, name)
        assert np.isnan(matrix.sel(a="flat")).all()
        assert not np.isnan(matrix.sel(a="a", b="b"))
        assert math.isnan(getattr(found, f"mean_{name}").mean)


@pytest.mark.parametrize("dimension", ["step", "block", "head"])
def test_agreement_within_one_profile(dimension):
    axis = ("step", "block", "head").index(dimension)
    scores = np.ones((3, 3, 3, 16)) * RISING
    index = [slice(None)] * 4
    index[axis] = 2
    scores[tuple(index)] = RISING[::-1]
    found = stability_over(planted(scores), dimension)
    np.testing.assert_allclose(found.spearman, [[1, 1, -1], [1, 1, -1], [-1, -1, 1]])
    assert found.spearman.coords["a"].values[2] == f"{dimension} 2"


def test_comparisons_that_mean_nothing():
    wide, more = planted(RISING, (Grid(2, 8),)), planted(np.ones((2, 1, 1, 16)) * RISING)
    with pytest.raises(InputError, match="at least 2 profiles, got 1"):
        stability([planted(RISING)])
    with pytest.raises(InputError, match="different reference grids"):
        stability([planted(RISING), wide])
    with pytest.raises(InputError, match="as many labels, got 1"):
        stability(noisy(2, 1), ["a"])
    with pytest.raises(InputError, match="different things"):
        stability([planted(RISING), more])
    with pytest.raises(InputError, match="fraction"):
        stability(noisy(2, 1), fraction=0)
    with pytest.raises(InputError, match="not 'token'"):
        stability_over(more, "token")
    with pytest.raises(InputError, match="only one block"):
        stability_over(more, "block")
