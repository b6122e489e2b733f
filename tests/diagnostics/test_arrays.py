"""The formulas against their definitions, spelt out slowly."""

from __future__ import annotations

import itertools
import math
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as hypothesis_arrays
from scipy import stats

from recast_probe.diagnostics import arrays

# few distinct values, so that ties are common
levels = st.integers(0, 6).map(float)
scores = st.integers(2, 12).flatmap(
    lambda tokens: hypothesis_arrays(np.float64, tokens, elements=levels)
)


@st.composite
def scores_and_mask(draw):
    score = draw(scores)
    inside = draw(hypothesis_arrays(bool, len(score)))
    inside[draw(st.integers(0, len(score) - 1))] = True
    inside[: 1 if inside.all() else 0] = False
    return score, inside


def test_top_count_rounds_half_up_and_keeps_one():
    assert [arrays.top_count(10, f) for f in (0.01, 0.25, 0.34, 1.0)] == [1, 3, 3, 10]
    assert arrays.top_count(4096, 0.25) == 1024
    # 0.29 * 50 is 14.499999999999998 in floats, and exactly 14.5
    assert [arrays.top_count(50, f) for f in (0.29, 0.57, 0.07)] == [15, 29, 4]
    assert arrays.top_count(9, 1 / 6) == 2
    assert arrays.top_count(3, 2 / 3) == 2
    assert arrays.top_count(10, np.float32(0.25)) == 3


@given(st.integers(1, 5000), st.integers(1, 1000))
def test_top_counts_are_exact_decimal_arithmetic(tokens, thousandths):
    exact = Decimal(thousandths) * tokens / 1000
    wanted = max(1, int(exact.quantize(Decimal(1), ROUND_HALF_UP)))
    assert arrays.top_count(tokens, thousandths / 1000) == wanted


def test_concentration_by_hand():
    score = np.array([4.0, 1.0, 2.0, 1.0])
    assert arrays.top_share(score, 0.25) == 0.5
    assert arrays.top_share(score, 0.5) == 0.75
    np.testing.assert_allclose(arrays.lorenz_curve(score), [0, 0.5, 0.75, 0.875, 1])
    # pairwise differences |a - b| sum to 20 over ordered pairs; 20 / (2 * 4 * 8)
    assert arrays.gini(score) == pytest.approx(20 / 64)
    assert arrays.entropy_bits(score) == pytest.approx(1.75)


@given(scores.filter(lambda score: score.sum() > 0))
def test_gini_is_half_the_mean_relative_difference(score):
    pairs = np.abs(score[:, None] - score[None, :]).sum()
    assert arrays.gini(score) == pytest.approx(pairs / (2 * len(score) * score.sum()), abs=1e-12)


@given(scores.filter(lambda score: score.sum() > 0), st.randoms(), st.floats(0.001, 1000))
def test_concentration_ignores_order_and_scale(score, random, factor):
    other = np.array(random.sample(list(score), len(score))) * factor
    for measure in (arrays.gini, arrays.entropy_bits, arrays.lorenz_curve):
        np.testing.assert_allclose(measure(other), measure(score), atol=1e-9)
    assert arrays.top_share(other, 0.3) == pytest.approx(arrays.top_share(score, 0.3))


@given(scores.filter(lambda score: score.sum() > 0))
def test_lorenz_curve_rises_and_flattens(score):
    curve = arrays.lorenz_curve(score)
    gains = np.diff(curve)
    assert curve[0] == 0
    assert curve[-1] == pytest.approx(1)
    assert (gains >= 0).all()
    assert (np.diff(gains) <= 1e-12).all()
    for count in range(1, len(score) + 1):
        assert arrays.top_share(score, count / len(score)) == pytest.approx(curve[count])
    # twice the area between the curve and the diagonal
    area = ((curve[1:] + curve[:-1]) / 2).sum() / len(score)
    assert arrays.gini(score) == pytest.approx(2 * area - 1, abs=1e-12)


@given(scores.filter(lambda score: score.sum() > 0))
def test_entropy_lies_between_zero_and_the_uniform_one(score):
    share = score / score.sum()
    found = float(arrays.entropy_bits(score))
    assert found == pytest.approx(stats.entropy(share, base=2), abs=1e-12)
    assert 0 <= found <= math.log2(len(score)) + 1e-12


def test_uniform_scores_have_all_bits_and_no_inequality():
    score = np.full(64, 0.01)
    assert arrays.entropy_bits(score) == pytest.approx(6)
    assert arrays.gini(score) == pytest.approx(0)
    assert arrays.top_share(score, 0.25) == pytest.approx(0.25)
    one = np.eye(64)[3]
    assert arrays.entropy_bits(one) == 0
    assert arrays.gini(one) == pytest.approx(63 / 64)


def test_no_mass_is_nan_and_silent(recwarn):
    nothing = np.zeros((2, 5))
    nothing[1, 2] = 1
    for found in (
        arrays.top_share(nothing, 0.2),
        arrays.gini(nothing),
        arrays.entropy_bits(nothing),
    ):
        assert np.isnan(found).tolist() == [True, False]
    assert not recwarn.list


@given(scores_and_mask())
def test_auroc_counts_pairs_with_ties_as_half(case):
    score, inside = case
    pairs = list(itertools.product(score[inside], score[~inside]))
    slow = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs])
    found = arrays.auroc(score, inside)
    assert np.isnan(found) if np.ptp(score) == 0 else found == pytest.approx(slow)
    if np.ptp(score) > 0:
        u = stats.mannwhitneyu(score[inside], score[~inside]).statistic
        assert found == pytest.approx(u / len(pairs))
        assert arrays.auroc(score, ~inside) == pytest.approx(1 - found)


@given(scores_and_mask())
def test_average_precision_takes_ties_together(case):
    score, inside = case
    total, recalled = 0.0, 0.0
    for threshold in sorted(set(score), reverse=True):
        taken = score >= threshold
        recall = inside[taken].sum() / inside.sum()
        total += inside[taken].mean() * (recall - recalled)
        recalled = recall
    found = arrays.average_precision(score, inside)
    assert np.isnan(found) if np.ptp(score) == 0 else found == pytest.approx(total)


def test_detection_by_hand_and_in_batches():
    score = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    masks = np.array([[1, 0, 1, 0, 0], [0, 0, 0, 1, 1], [1, 1, 0, 0, 0]], bool)
    np.testing.assert_allclose(arrays.auroc(score, masks), [5 / 6, 0, 1])
    np.testing.assert_allclose(
        arrays.average_precision(score, masks), [(1 + 2 / 3) / 2, (1 / 4 + 2 / 5) / 2, 1]
    )


def test_top_tokens_break_ties_by_index():
    chosen = arrays.top_tokens(np.array([[1.0, 2, 2, 2], [0, 0, 0, 0]]), 2)
    assert chosen.tolist() == [[False, True, True, False], [True, True, False, False]]


@given(hypothesis_arrays(np.float64, (3, 9), elements=levels))
def test_correlations_are_scipys(rows):
    varied = [i for i in range(3) if np.ptp(rows[i]) > 0]
    for name, reference in (("spearman", stats.spearmanr), ("kendall", stats.kendalltau)):
        matrix = getattr(arrays, f"{name}_matrix")(rows)
        for i, j in itertools.product(varied, repeat=2):
            wanted = reference(rows[i], rows[j]).statistic
            assert matrix[i, j] == pytest.approx(wanted, abs=1e-12)
    constant = [i for i in range(3) if i not in varied]
    assert np.isnan(arrays.spearman_matrix(rows)[constant]).all()


def test_jaccard_of_the_best_tokens_by_hand():
    rows = np.array([[9.0, 8, 7, 1, 0, 0], [8, 9, 0, 7, 0, 0], [0, 0, 0, 7, 8, 9]])
    found = arrays.jaccard_matrix(rows, 3)
    np.testing.assert_allclose(found, [[1, 2 / 4, 0], [2 / 4, 1, 1 / 5], [0, 1 / 5, 1]])


@given(st.permutations(range(7)), st.permutations(range(7)), st.floats(0.1, 0.99))
def test_rank_biased_overlap_is_its_sum_over_depths(first, second, persistence):
    rows = np.array([np.argsort(first), np.argsort(second)]) * -1.0
    agreement = [len(set(first[:d]) & set(second[:d])) / d for d in range(1, 8)]
    weight = [persistence ** (d - 1) for d in range(1, 8)]
    wanted = np.dot(agreement, weight) / sum(weight)
    found = arrays.rank_biased_overlap_matrix(rows, persistence)
    assert found[0, 1] == pytest.approx(wanted)
    np.testing.assert_allclose(np.diag(found), 1)
