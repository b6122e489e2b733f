"""Intervals that cover, tests that keep their level, and scipy's own numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from recast_probe.diagnostics import bootstrap_mean, paired_difference
from recast_probe.errors import InputError


def test_the_interval_is_scipys():
    values = np.random.default_rng(0).gamma(2, size=30)
    found = bootstrap_mean(values, confidence=0.9, draws=500, seed=4)
    wanted = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=500, method="BCa", rng=4
    ).confidence_interval
    assert (found.low, found.high) == (wanted.low, wanted.high)
    assert found.mean == values.mean()
    assert found.count == 30


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


def test_too_few_values_are_nan_with_a_warning():
    with pytest.warns(UserWarning, match="One value"):
        found = bootstrap_mean([2.0])
    assert found.mean == 2
    assert math.isnan(found.low)
    with pytest.warns(UserWarning, match="One value"):
        assert math.isnan(paired_difference([1.0], [2.0]).p_value)


def test_constant_values_have_no_width():
    found = bootstrap_mean([0.5] * 6)
    assert (found.low, found.high) == (0.5, 0.5)
    assert str(found) == "0.500 [0.500, 0.500]"
    assert paired_difference([1.0] * 6, [1.0] * 6).p_value == 1


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
