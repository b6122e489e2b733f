"""Intervals that cover, tests that keep their level, and scipy's own numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from recast_probe.diagnostics import bootstrap_mean, mean_interval, paired_difference
from recast_probe.errors import InputError


def test_one_interval_for_one_question():
    values = np.random.default_rng(0).gamma(2, size=30)
    found = bootstrap_mean(values, confidence=0.9, draws=500, seed=4)
    wanted = mean_interval(list(values[:, None]), confidence=0.9, draws=500, seed=4)
    assert found == wanted
    assert found.mean == values.mean()
    assert (found.count, found.method) == (30, "studentized bootstrap, at least Student's t")
    pairs = paired_difference(values, np.zeros(30), 0.9, seed=4).interval
    assert pairs == mean_interval(list(values[:, None]), confidence=0.9, seed=4)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """1,000 samples of 60 uniform numbers: 93 to 97 % of the intervals hold the true mean."""
    samples = np.random.default_rng(1).random((1000, 60))
    found = [bootstrap_mean(sample, draws=500, seed=i) for i, sample in enumerate(samples)]
    covered = np.mean([each.low <= 0.5 <= each.high for each in found])
    assert 0.93 <= covered <= 0.97


def test_the_sign_flip_test_is_scipys_and_exact_when_small():
    first, second = [3.0, 5, 4, 6], [1.0, 2, 5, 1]
    found = paired_difference(first, second)
    # of the 16 sign patterns of 2, 3, -1, 5 those with |sum| >= 9: 11, 9 and their mirrors
    assert found.p_value == pytest.approx(4 / 16)
    assert found.interval.mean == 2.25
    rng = np.random.default_rng(2)
    a, b = rng.random((2, 30))
    wanted = stats.permutation_test(
        (a - b,), np.mean, permutation_type="samples", n_resamples=999, vectorized=True, rng=5
    )
    assert paired_difference(a, b, draws=999, seed=5).p_value == wanted.pvalue


def test_the_sign_flip_test_keeps_its_level():
    rng = np.random.default_rng(3)
    p_values = [
        paired_difference(*rng.random((2, 12)), draws=400, seed=i).p_value for i in range(400)
    ]
    assert 0.025 <= np.mean(np.array(p_values) <= 0.05) <= 0.08


def test_too_few_values_cannot_tell():
    with pytest.warns(UserWarning, match="one subject"):
        found = bootstrap_mean([2.0])
    assert found.mean == 2
    assert math.isnan(found.low)
    assert str(found) == "2.000 [cannot tell, n=1]"
    with pytest.warns(UserWarning, match="One subject"):
        assert math.isnan(paired_difference([1.0], [2.0]).p_value)


def test_a_few_equal_values_show_no_spread():
    assert str(mean_interval([[0.5]] * 6)) == "0.500 [cannot tell, n=6]"
    many = mean_interval([[0.5]] * 12)
    assert str(many) == "0.500 [0.500, 0.500, n=12]"
    assert paired_difference([1.0] * 6, [1.0] * 6).p_value == 1
    # between limits, equal values leave room for those that were not seen
    sure = mean_interval([[1.0]] * 20, within=(0, 1))
    assert sure.high == sure.mean == 1
    assert 0.8 < sure.low < 0.97


def test_pairs_of_one_subject_are_flipped_together():
    first, second = [3.0, 5, 4, 6], [1.0, 2, 5, 1]
    found = paired_difference(first, second, subjects=["a", "a", "b", "c"])
    assert found.interval.count == 3
    # sums 5, -1, 5: of 8 patterns those with |sum| >= 9
    assert found.p_value == pytest.approx(4 / 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_mean([]), "no values"),
        (lambda: bootstrap_mean([1.0, math.nan]), "1 of 2 values are not finite"),
        (lambda: bootstrap_mean(np.ones((2, 2))), "shape"),
        (lambda: bootstrap_mean([1.0, 2.0], confidence=95), "between 0 and 1"),
        (lambda: bootstrap_mean([1.0, 2.0], draws=0), "at least 1, not 0"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), "equal lengths"),
        (lambda: paired_difference([1.0, math.inf], [1.0, 2.0]), "not finite"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
