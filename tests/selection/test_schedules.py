"""Budgets step by step: equal totals, equal costs, and what profiles suggest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_probe import budget as budgets
from recast_probe.errors import InputError
from recast_probe.interventions import Prune
from recast_probe.selection.rankings import Ranking, random
from tests.diagnostics.planted import planted

PAPER = budgets.Adaptive(256, 1024)


def test_inverted_and_flat_schedules_cost_what_eq_4_costs():
    plain = PAPER.schedule(28)
    for start in (0, 1):
        for make in (budgets.inverted, budgets.flat):
            other = make(PAPER, 28, start=start).schedule(28)
            assert other[start:].sum() == plain[start:].sum()
            assert other[:start].tolist() == plain[:start].tolist()
    backwards = budgets.inverted(PAPER, 28, start=1).schedule(28)
    assert backwards[1:].tolist() == plain[1:][::-1].tolist()
    even = budgets.flat(PAPER, 28, start=1).schedule(28)[1:]
    assert even.max() - even.min() <= 1


def test_a_list_fits_one_length_of_run_only(probe, image):
    listed = budgets.Listed((4, 9, 16))
    result = probe.generate(
        image, "fox", steps=3, interventions=[Prune(random(16, 0), listed)], progress=False
    )
    assert result.reference_tokens_per_step == (4, 9, 16)
    described = result.provenance["interventions"][0]["budget"]
    assert described == {"name": "Listed", "tokens": (4, 9, 16), "made": "listed"}
    with pytest.raises(InputError, match="lists 3 steps, but the run has 4"):
        probe.generate(
            image, "fox", steps=4, interventions=[Prune(random(16, 0), listed)], progress=False
        )
    for wrong in ((), (0, 3), (1.5, 2), ((1, 2),)):
        with pytest.raises(InputError, match="one whole number of at least 1"):
            budgets.Listed(wrong)


@given(
    shape=st.lists(st.floats(0.01, 100), min_size=1, max_size=30),
    share=st.floats(0, 1),
    most=st.integers(1, 300),
)
def test_totals_are_met_exactly_and_in_proportion(shape, share, most):
    total = len(shape) + round(share * (most - 1) * len(shape))
    found = np.array(budgets.with_total(shape, total, most))
    assert found.sum() == total
    assert found.min() >= 1
    assert found.max() <= most
    # among steps at neither end the counts follow the shape to within one token
    inner = (found > 1) & (found < most)
    if inner.sum() > 1:
        low = ((found - 1) / shape)[inner].max()
        high = ((found + 1) / shape)[inner].min()
        assert low <= high * (1 + 1e-9)


@given(shape=st.lists(st.floats(0.1, 10), min_size=2, max_size=12), total=st.floats(40, 5000))
def test_costs_are_met_from_below(shape, total):
    def cost(tokens: int) -> float:
        return 2 + tokens + 0.01 * tokens**2

    found = budgets.with_cost(shape, total, cost, most=60)
    spent = sum(map(cost, found))
    assert spent <= total
    # one more token anywhere would cost too much
    for tokens in found:
        assert tokens == 60 or spent + cost(tokens + 1) - cost(tokens) > total


def test_totals_that_cannot_be():
    with pytest.raises(InputError, match="cannot be spread"):
        budgets.with_total([1, 1, 1], 2)
    with pytest.raises(InputError, match="cannot be spread"):
        budgets.with_total([1, 1, 1], 13, most=4)
    with pytest.raises(InputError, match="positive and finite"):
        budgets.with_total([1, 0, 1], 5)
    with pytest.raises(InputError, match="below that of one token"):
        budgets.with_cost([1, 1], 1.5, float, most=9)
    with pytest.raises(InputError, match="outside the run"):
        budgets.inverted(PAPER, 4, start=4)


def test_entropy_matched_budgets_follow_the_effective_tokens():
    uniform, half = np.full(16, 1 / 16), np.r_[np.full(8, 1 / 8), np.zeros(8)]
    quarter = np.r_[np.full(4, 1 / 4), np.zeros(12)]
    profile = planted(np.stack([uniform, uniform, half, quarter])[:, None, None])
    found = budgets.entropy_matched(profile, 14, blocks="all", start=1)
    assert found.tokens == (16, 8, 4, 2)
    with pytest.raises(InputError, match="cannot be spread over 3 steps"):
        budgets.entropy_matched(profile, 49, blocks="all", start=1)


def test_mass_thresholds_by_hand():
    ranking = Ranking.from_score(np.array([0.1, 0.4, 0.3, 0.2]), "by hand", {})
    found = [budgets.mass_threshold(ranking, share) for share in (0.1, 0.4, 0.41, 0.7, 0.9, 1)]
    assert found == [1, 1, 2, 2, 3, 4]
    scores = np.array([np.full(16, 1.0), np.r_[16.0, np.zeros(15)]])[:, None, None]
    assert budgets.mass_threshold_per_step(planted(scores), 0.5, blocks="all").tokens == (8, 1)
    with pytest.raises(InputError, match="above 0"):
        budgets.mass_threshold(ranking, 0)
    with pytest.raises(InputError, match="has no mass"):
        budgets.mass_threshold(random(4, 0), 0.5)
    with pytest.raises(InputError, match="has no mass"):
        budgets.mass_threshold(ranking.reversed(), 0.5)
