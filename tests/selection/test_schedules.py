"""Budgets step by step: equal totals, equal costs, and what profiles suggest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from recast_probe import budget as budgets
from recast_probe.errors import InputError
from recast_probe.interventions import Prune
from recast_probe.selection.rankings import Ranking, random
from recast_probe.testing.planted_profiles import planted

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
    assert described == {"name": "Listed", "tokens": [4, 9, 16], "made": "listed"}
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
@example(shape=[4.5, 1 / 3], total=40.0)
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


def test_profiles_with_gaps_make_no_schedule():
    profile = planted(np.full((3, 1, 1, 16), 1.0))
    gaps = type(profile)(profile.dataset.isel(step=[0, 2]))
    for make in (
        lambda: budgets.entropy_matched(gaps, 9, blocks="all"),
        lambda: budgets.mass_threshold_per_step(gaps, 0.5, blocks="all"),
    ):
        with pytest.raises(InputError, match=r"only \[0, 2\]"):
            make()
    with pytest.raises(InputError, match="start=3 is outside"):
        budgets.entropy_matched(profile, 9, blocks="all", start=3)


def test_a_share_of_the_mass_is_a_budget_of_a_ranking():
    ranking = Ranking.from_score(np.array([0.1, 0.4, 0.3, 0.2]), "by hand", {})
    assert [budgets.MassShare(share).tokens_of(ranking) for share in (0.4, 0.7, 1)] == [1, 2, 4]


def flop(tokens: int) -> float:
    """Of one step with 100 other tokens: linear layers and attention."""
    return 50.0 * (100 + tokens) + (100 + tokens) ** 2


def test_matched_budgets_have_equal_token_steps_or_equal_cost():
    fixed = budgets.Fixed(500)
    token_steps = budgets.total_of(fixed, 28, start=1)
    assert token_steps == 27 * 500
    equal = budgets.matched(PAPER, token_steps, 28, start=1, most=4096)
    assert budgets.total_of(equal, 28, start=1) == token_steps
    assert equal.tokens[0] == 256
    assert equal.made.endswith("scaled to 13500 token-steps from step 1")
    ratio = np.array(equal.tokens[1:]) / PAPER.schedule(28)[1:]
    assert np.ptp(ratio) < 0.01
    cost = budgets.total_of(fixed, 28, start=1, cost=flop)
    assert cost == pytest.approx(27 * flop(500))
    cheap = budgets.matched(PAPER, cost, 28, start=1, most=4096, cost=flop)
    spent = budgets.total_of(cheap, 28, start=1, cost=flop)
    assert cost - (flop(1000) - flop(999)) <= spent <= cost
    # attention is dearer where many tokens are, so equal cost means fewer token-steps
    assert budgets.total_of(cheap, 28, start=1) < token_steps
    assert "scaled to a cost of at most" in cheap.made


def test_what_cannot_be_matched():
    with pytest.raises(InputError, match=r"whole number, not 10\.5"):
        budgets.matched(budgets.Fixed(4), 10.5, 3)
    with pytest.raises(InputError, match="needs `most`"):
        budgets.matched(budgets.Fixed(4), 10, 3, cost=float)
    with pytest.raises(InputError, match="cannot be spread"):
        budgets.matched(budgets.Fixed(4), 100, 3, most=16)
    with pytest.raises(InputError, match="below that of one token"):
        budgets.matched(budgets.Fixed(4), 1, 3, most=16, cost=flop)
