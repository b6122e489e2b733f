"""Sequential non-inferiority: published boundaries, planted losses, and what must always hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmarks.gate_errors import ADDED, rates
from recast_probe.errors import InputError
from recast_probe.studies.gate import group_sequential
from recast_probe.studies.gate.group_sequential import boundaries, schedule, spent
from recast_probe.studies.gate.loss_limit import Limit
from recast_probe.studies.gate.noninferiority import non_inferiority
from recast_probe.studies.gate.repeated_intervals import repeated_interval, repeated_p_value


@pytest.mark.parametrize(
    "published",
    [
        (2.963, 1.969),
        (3.710, 2.511, 1.993),
        (4.333, 2.963, 2.359, 2.014),
        (4.877, 3.357, 2.680, 2.290, 2.031),
    ],
)
def test_boundaries_are_the_published_ones(published):
    """Lan and DeMets' O'Brien-Fleming-like boundaries, one-sided 0.025, equal looks, as `ldbounds`
    and `gsDesign` of R have them."""
    count = len(published)
    found = boundaries(tuple((look + 1) / count for look in range(count)), 0.025)
    assert found == pytest.approx(published, abs=6e-4)


@pytest.mark.parametrize(
    ("fractions", "last"),
    [
        (tuple((look + 1) / 20 for look in range(20)), 1.8390585331),
        (tuple((look + 1) / 53 for look in range(53)), 1.8834119516),
        (tuple((look + 1) / 200 for look in range(200)), 1.9196800363),
        ((0.5, 0.999, 1.0), 1.7068027692),
    ],
)
def test_boundaries_hold_to_10_digits_however_close_the_looks_are(fractions, last, monkeypatch):
    found = boundaries(fractions, 0.05)
    assert found[-1] == pytest.approx(last, abs=2e-10)
    boundaries.cache_clear()
    monkeypatch.setattr(group_sequential, "PIECE", group_sequential.PIECE / 1.5)
    np.testing.assert_allclose(boundaries(fractions, 0.05), found, rtol=1e-10)
    boundaries.cache_clear()


def test_looks_that_are_too_close_for_that_are_refused():
    with pytest.raises(InputError, match="1e-05 of all data"):
        boundaries((0.99999, 1.0))


def test_without_an_effect_what_is_spent_is_what_crosses():
    fractions, alpha = (0.1, 0.35, 0.4, 1.0), 0.05
    random = np.random.default_rng(0)
    steps = np.sqrt(np.diff(fractions, prepend=0))
    scores = (random.normal(size=(200_000, 4)) * steps).cumsum(1) / np.sqrt(fractions)
    crossed = (scores >= boundaries(fractions, alpha)).cumsum(1) > 0
    assert crossed.mean(0) == pytest.approx(spent(np.array(fractions), alpha), abs=1.5e-3)


def test_one_look_is_the_plain_test():
    assert boundaries((1.0,), 0.05) == pytest.approx((stats.norm.isf(0.05),))
    values = np.random.default_rng(1).normal(0.3, 1, 30)
    symmetric = np.concatenate([values, 2 * values.mean() - values])
    low, high, _ = repeated_interval(symmetric, boundaries((1.0,), 0.05)[0])
    wanted = stats.ttest_1samp(symmetric, 0).confidence_interval(0.9)
    assert (low, high) == pytest.approx(tuple(wanted))
    p_value = stats.ttest_1samp(symmetric, 0).pvalue
    assert repeated_p_value(symmetric, [60], 1) == pytest.approx(p_value, rel=2e-3)


# three standard errors of a rate of 5 % in 1,000 studies
MOST = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


@pytest.mark.parametrize("kind", ["normal", "skewed (beta)", "rare failures"])
def test_a_loss_of_exactly_the_limit_is_rarely_judged(kind):
    found = rates(kind, 1.0, subjects=60, studies=1000)
    assert found["passes"] <= MOST
    assert found["fails"] <= MOST


@pytest.mark.parametrize("kind", ["normal", "skewed (beta)", "rare failures"])
def test_clear_losses_get_their_verdict_and_never_the_other(kind):
    half, twice = (rates(kind, times, subjects=150, studies=150, seed=1) for times in (0.5, 2.0))
    assert half["fails"] <= 0.02
    assert twice["passes"] <= 0.02
    if kind != "rare failures":
        assert half["passes"] > 0.7
        assert twice["fails"] > 0.95
        assert twice["subjects"] < 110


def test_the_allowance_is_what_keeps_unseen_failures_from_passing():
    """Without it one study in four passes a method that loses the whole limit in rare failures."""
    assert rates("rare failures", 1.0, subjects=60, studies=200, failure=None)["passes"] > 0.15
    assert rates("rare failures", 2.0, subjects=60, studies=200)["passes"] <= 0.05


scores = st.lists(st.floats(0.2, 1.0), min_size=12, max_size=40).map(np.array)


@given(scores, st.integers(0, 2**32 - 1), st.booleans(), st.floats(0.01, 0.3))
@settings(max_examples=60, deadline=None)
def test_verdict_and_interval_say_the_same(full, seed, relative, value):
    method = full - np.random.default_rng(seed).normal(0.03, 0.05, len(full))
    assume((full - method).std() > 1e-6)
    limit = Limit(value, relative)
    found = non_inferiority(full, method, limit, schedule(len(full)), failure=ADDED)
    assert found.low <= found.loss <= found.high
    assert (found.verdict == "passes") == (found.high < value)
    assert (found.verdict == "fails") == (found.low > value)
    assert found.spent <= found.alpha * (1 + 1e-12)
    # the unit of the metric does not matter to a relative limit, nor a shift to an absolute one
    moved = (2 * full, 2 * method, 2 * ADDED) if relative else (full + 1, method + 1, ADDED)
    again = non_inferiority(*moved[:2], limit, schedule(len(full)), failure=moved[2])
    assert again.verdict == found.verdict
    assert again.loss == pytest.approx(found.loss, abs=1e-9)


def test_subjects_after_the_deciding_look_count_for_nothing():
    random = np.random.default_rng(2)
    full = random.beta(12, 3, 60)
    method = full - random.normal(0.2, 0.02, 60)
    found = non_inferiority(full, method, 0.03, schedule(60), failure=ADDED)
    assert (found.verdict, found.subjects < 60) == ("fails", True)
    method[found.subjects :] = full[found.subjects :] + 0.5
    assert non_inferiority(full, method, 0.03, schedule(60), failure=ADDED) == found


def test_the_number_that_is_needed_is_enough():
    random = np.random.default_rng(3)
    full = random.beta(12, 3, 20)
    losses = random.normal(0, 1, 20)
    losses = 0.02 + 0.03 * (losses - losses.mean()) / losses.std(ddof=1)
    few = non_inferiority(full, full - losses, 0.03, failure=ADDED)
    assert few.verdict == "cannot tell"
    assert few.needed is not None
    assert few.needed > 20
    studies = [
        non_inferiority(x, x - random.normal(0.02, 0.03, len(x)), 0.03, failure=ADDED).verdict
        for x in random.beta(12, 3, (100, few.needed))
    ]
    assert studies.count("passes") > 65


def test_a_method_that_changes_nothing_passes_once_there_are_enough():
    full = np.linspace(0.6, 0.9, 60)
    few, many = (non_inferiority(full[:n], full[:n], 0.03, failure=0.3) for n in (12, 60))
    assert (few.verdict, few.needed is not None, many.verdict) == ("cannot tell", True, "passes")
    assert few.needed <= 60


@pytest.mark.parametrize(("count", "words"), [(1, "one subject"), (5, "skewed"), (9, "equal")])
def test_what_cannot_be_told_says_why(count, words):
    full = np.full(count, 0.5)
    found = non_inferiority(full, full, 0.03, failure=0.1)
    assert found.verdict == "cannot tell"
    assert words in found.reason


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limit": "3"}, None),
        ({"limit": "120%"}, "120"),
        ({"limit": "0"}, "above 0"),
        ({"limit": "a lot"}, "a lot"),
        ({"full": [0.1, np.nan]}, "finite"),
        ({"full": [0.1]}, "one of each"),
        ({"looks": [4]}, "4"),
        ({"looks": [2, 1]}, "ascending"),
        ({"failure": np.nan}, "failure"),
        ({"failure": [0.1, 0.1, 0.1]}, "failure"),
        ({"full": [0.0, 0.0], "limit": "8%"}, "mean is 0"),
    ],
)
def test_bad_input_is_refused(change, words):
    given = {"full": [0.5, 0.6], "method": [0.5, 0.5], "limit": 0.03, "failure": 0.1} | change
    if words is None:
        assert non_inferiority(**given).verdict == "cannot tell"
        return
    with pytest.raises(InputError, match=words):
        non_inferiority(**given)


def test_repeated_p_values_hold_at_an_early_look():
    """They are larger than the plain ones there, and reject as seldom as they say."""
    random = np.random.default_rng(4)
    looks = (16, 32)
    found = []
    for values in random.normal(size=(100, 32)):
        early, late = repeated_p_value(values[:16], looks, 1), repeated_p_value(values, looks, 2)
        assert early >= stats.ttest_1samp(values[:16], 0).pvalue - 1e-3
        found.append(min(early, late))
    assert np.mean(np.array(found) <= 0.1) <= 0.1 + 2 * math.sqrt(0.09 / 100)
