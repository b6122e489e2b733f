"""Curves, areas, doses and agreement against answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_probe.errors import InputError
from recast_probe.experiments.faithfulness import Curves, curve_area, dose_response, group_agreement
from recast_probe.experiments.faithfulness.curves import token_counts
from recast_probe.selection.rankings import Ranking, random


def test_areas_by_hand():
    assert curve_area([0, 1], [1, 1]) == 1
    assert curve_area([0, 1], [0, 1]) == 0.5
    assert curve_area([0, 0.25, 1], [0, 1, 1]) == pytest.approx(0.125 + 0.75)
    for shares in ([0.1, 1], [0, 0.9], [0, 0.5, 0.5, 1], [0, 0.6, 0.5, 1], [0]):
        with pytest.raises(InputError):
            curve_area(shares, np.zeros(len(shares)))
    with pytest.raises(InputError):
        curve_area([0, 1], [1])


def test_counts_of_tokens():
    assert token_counts(256, (1 / 16, 1 / 4)) == [16, 64]
    assert token_counts(16, (0.01, 0.02, 0.99)) == [1, 15]
    assert token_counts(10, (0.25,)) == [3]  # rounded half up
    for shares in ((), (0.0,), (1.0,), (0.5, 1.5)):
        with pytest.raises(InputError):
            token_counts(16, shares)
    with pytest.raises(InputError):
        token_counts(1, (0.5,))


def additive(order, weights, score=None) -> Curves:
    """Curves of a score to which every token adds its own weight."""
    counts = np.arange(len(weights) + 1)
    ranking = Ranking(np.asarray(order), "planted", score)
    insertion = [weights[order[:count]].sum() for count in counts]
    deletion = [weights[order[count:]].sum() for count in counts]
    return Curves(ranking, counts, np.array(insertion), np.array(deletion))


WEIGHTS = np.array([0.1, 0.6, 0.0, 0.3])


def test_the_best_order_by_hand():
    best = additive(np.array([1, 3, 0, 2]), WEIGHTS, WEIGHTS)
    np.testing.assert_allclose(best.insertion, [0, 0.6, 0.9, 1, 1])
    np.testing.assert_allclose(best.deletion, [1, 0.4, 0.1, 0, 0])
    assert best.insertion_area == pytest.approx(0.75)
    assert best.deletion_area == pytest.approx(0.25)
    assert best.margin == pytest.approx(0.5)
    assert best.sufficiency(0.25) == pytest.approx(0.6)
    assert best.necessity(0.5) == pytest.approx(0.9)
    # the mass of the score is the effect, so dose and response agree
    assert best.dose_response().error == pytest.approx(0)
    assert best.dose_response().rho == pytest.approx(1, abs=0.06)  # the last token does nothing
    with pytest.raises(InputError, match="no point at share"):
        Curves(best.ranking, np.array([0, 2, 4]), np.zeros(3), np.zeros(3)).necessity(0.25)
    with pytest.raises(InputError, match="one value for each"):
        _ = Curves(best.ranking, best.counts, np.zeros(3), best.deletion).insertion_area


@given(st.permutations(range(4)))
def test_no_order_beats_that_of_the_weights(order):
    best = additive(np.array([1, 3, 0, 2]), WEIGHTS)
    other = additive(np.array(order), WEIGHTS)
    assert other.insertion_area <= best.insertion_area + 1e-12
    assert other.deletion_area >= best.deletion_area - 1e-12
    # with weights that add up, both curves say the same
    assert other.insertion_area + other.deletion_area == pytest.approx(1)


def test_random_orders_have_no_margin():
    margins = [additive(random(4, seed).order, WEIGHTS).margin for seed in range(2000)]
    assert abs(np.mean(margins)) < 4 * np.std(margins) / np.sqrt(len(margins))


def test_doses():
    assert dose_response([0, 0.5, 1], [0, 0.5, 1]).error == 0
    assert dose_response([0, 0.5, 1], [0, 0.5, 1]).rho == pytest.approx(1)
    # attention that holds most of the mass, and little of the effect
    found = dose_response([0, 0.8, 0.9, 1], [0, 0.2, 0.3, 1])
    assert found.error == pytest.approx(0.6)
    assert dose_response([0, 0.5, 1], [1, 0.5, 0]).rho == pytest.approx(-1)
    assert np.isnan(dose_response([0, 1], [1, 1]).rho)
    assert np.isnan(dose_response([0, 1], [0, 1]).error)
    with pytest.raises(InputError):
        dose_response([0, 2], [0, 1])
    with pytest.raises(InputError):
        dose_response([0, 1], [0])
    flat = additive(np.arange(4), np.zeros(4))
    assert np.isnan(flat.dose_response().rho)


def test_agreement_with_effects_of_groups():
    groups = [np.array([0, 1]), np.array([2, 3]), np.array([4, 5])]
    ranking = Ranking(np.array([2, 3, 0, 1, 4, 5]), "planted")
    assert group_agreement(ranking, [0.2, 0.9, -0.1], groups) == pytest.approx(1)
    assert group_agreement(ranking.reversed(), [0.2, 0.9, -0.1], groups) == pytest.approx(-1)
    assert np.isnan(group_agreement(ranking, [0.5, 0.5, 0.5], groups))
    with pytest.raises(InputError):
        group_agreement(ranking, [0.5, 0.5], groups)
    with pytest.raises(InputError):
        group_agreement(ranking, [0.5, 0.5], groups[:2])
