"""Intervals stay within the possible, and say so where they cannot tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from recast_probe.diagnostics import difference_interval, mean_interval, mean_of_pairs
from recast_probe.diagnostics.intervals import interval_text
from recast_probe.errors import InputError

LIMITS = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))


def groups(values):
    return [np.atleast_1d(value) for value in values]


@given(
    st.sampled_from(LIMITS),
    st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=1, max_size=30),
)
@settings(deadline=None, max_examples=200)
def test_a_bounded_mean_never_leaves_the_possible(limits, shares):
    least, largest = limits
    found = mean_interval([least + (largest - least) * np.array(s) for s in shares], within=limits)
    if found.cannot_tell:
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    else:
        assert least <= found.low <= found.mean <= found.high <= largest
        assert found.low < found.high
        assert found.high - found.low < largest - least


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=14))
@settings(deadline=None, max_examples=100)
def test_differences_never_leave_the_possible(values):
    found = difference_interval(groups(values), within=(0, 1), draws=200)
    if not found.cannot_tell:
        assert -1 <= found.low <= found.mean <= found.high <= 1
        assert found.high - found.low < 2


def test_half_an_observation_at_either_limit():
    """By hand: four subjects, and the limits with half the weight of a subject each."""
    values, weights = np.array([0.99, 0.9, 1.0, 0.95, 0, 1]), np.array([1, 1, 1, 1, 0.5, 0.5])
    centre = np.average(values, weights=weights)
    error = math.sqrt((weights * (values - centre) ** 2).sum() / 4 / 5)
    half = stats.t.ppf(0.975, 3) * error
    found = mean_interval(groups(values[:4]), within=(0, 1))
    assert found.low == pytest.approx(centre - half)
    assert found.high == min(1, centre + half)
    assert (found.method, found.count) == ("bounded t", 4)
    # the same in other units, and with every value twice
    scaled = mean_interval(groups(values[:4] * 2 - 1), within=(-1, 1))
    assert scaled.low == pytest.approx(2 * found.low - 1)
    twice = mean_interval([np.array([v, v]) for v in values[:4]], within=(0, 1))
    assert twice.low == pytest.approx(found.low)


@pytest.mark.parametrize("seed", range(3))
def test_one_outlier_of_five_cannot_tell_without_limits(seed):
    found = mean_interval(groups([0.99, 0.98, 0.2, 0.97, 0.995]), seed=seed)
    assert str(found) == "0.827 [cannot tell, n=5]"
    assert "one or two subjects" in found.cannot_tell
    bounded = mean_interval(groups([0.99, 0.98, 0.2, 0.97, 0.995]), within=(0, 1))
    assert 0.3 < bounded.low < 0.827 < bounded.high <= 1


def test_two_subjects_far_apart_leave_everything_possible():
    found = mean_interval(groups([0.1, 0.9]), within=(0, 1))
    assert found.cannot_tell == "it would hold everything that is possible"
    found = difference_interval(groups([-0.9, 0.9]), within=(0, 1))
    assert str(found) == "0.000 [cannot tell, n=2]"


def test_rare_failures_that_were_not_seen_are_allowed_for():
    """10 % of the subjects fail; most samples of 8 show one or none."""
    rng = np.random.default_rng(0)
    truth, covered = 0.1 * 0.45 + 0.9 * 0.975, []
    for _ in range(300):
        fails = rng.random(8) < 0.1
        values = np.where(fails, rng.uniform(0.3, 0.6, 8), rng.uniform(0.95, 1, 8))
        found = mean_interval(groups(values), within=(0, 1))
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) > 0.95


@pytest.mark.parametrize("count", [3, 5, 12])
def test_agreement_over_pairs_is_covered(count):
    rng = np.random.default_rng(1)
    common = np.random.default_rng(5).normal(size=40)

    def matrix(size):
        return np.corrcoef(common + rng.lognormal(0, 0.4, (size, 1)) * rng.normal(size=(size, 40)))

    whole = matrix(2000)
    truth = whole[np.triu_indices(2000, 1)].mean()
    found = [mean_of_pairs(matrix(count)) for _ in range(300)]
    told = [each for each in found if not each.cannot_tell]
    assert len(told) > 200
    assert np.mean([each.low <= truth <= each.high for each in told]) > 0.9


def test_the_jackknife_leaves_out_one_ranking_at_a_time():
    pairs = [0.5, 0.2, 0.4, 0.6, 0.1, 0.3]
    matrix = np.eye(4)
    matrix[np.triu_indices(4, 1)] = pairs
    matrix = np.maximum(matrix, matrix.T)
    mean = np.mean(pairs)
    # without the first ranking the last three pairs are left, and so on
    rest = [
        np.mean([pairs[i] for i in kept]) for kept in ((3, 4, 5), (1, 2, 5), (0, 2, 4), (0, 1, 3))
    ]
    pseudo = 4 * mean - 3 * np.array(rest)
    wanted = stats.t.interval(0.95, 3, mean, stats.sem(pseudo))
    found = mean_of_pairs(matrix)
    assert (found.low, found.high) == pytest.approx(wanted)


def test_the_words():
    assert interval_text(0.8271, 0.79, 0.85, 24) == "0.827 [0.790, 0.850, n=24]"
    assert interval_text(0.5, math.nan, math.nan, 5, 2) == "0.50 [cannot tell, n=5]"
    assert interval_text(math.nan, math.nan, math.nan, 5) == "not defined"
    found = mean_interval(groups([0.1, 0.2, 0.4]), within=(0, 1)).to_dict()
    assert (found["count"], found["method"]) == (3, "bounded t")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval(groups([0.9, 1.1]), within=(0, 1)), "0.9 to 1.1 do not lie within"),
        (lambda: mean_interval(groups([0.9]), within=(1, 0)), "the least first, got 1 and 0"),
        (lambda: mean_interval(groups([0.9]), within=(0, math.inf)), "must be finite"),
        (lambda: difference_interval(groups([1.5, 0]), within=(0, 1)), "cannot exceed 1"),
        (lambda: mean_interval([]), "at least one subject"),
        (lambda: mean_interval(groups([math.nan]), within=(0, 1)), "not finite"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
