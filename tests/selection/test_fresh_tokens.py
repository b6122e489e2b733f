"""The rules of token-wise caching: known answers of the published FLUX variant, and properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recast_probe.attention.readout import attend
from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.selection.fresh_tokens import (
    FreshShare,
    attention_received,
    best_tokens,
    caching_score,
    full_steps,
    grown_older,
    random_importance,
    token_count,
    with_spread_bonus,
)


def test_full_steps_of_the_published_variant():
    # three at first, then every fourth after the last full one
    assert full_steps(15, 4) == (0, 1, 2, 6, 10, 14)
    assert full_steps(8, 2, first=1) == (0, 2, 4, 6)
    assert full_steps(5, 1) == (0, 1, 2, 3, 4)
    assert full_steps(2, 9) == (0, 1)


def test_the_interval_may_change_over_the_run():
    shorter = full_steps(28, 4, first=1, slope=0.5)
    gaps = np.diff(shorter)
    # 4 / 0.5 = 8 at first, 4 / 1.5 = 2.7 at the end
    assert gaps[0] == 8
    assert gaps[-1] == 3
    assert (np.diff(gaps) <= 0).all()
    assert np.diff(full_steps(28, 4, first=1, slope=-0.5))[0] == 3


@given(
    steps=st.integers(1, 60),
    interval=st.integers(1, 12),
    first=st.integers(1, 6),
    slope=st.floats(-0.9, 0.9),
)
def test_every_run_starts_full_and_interval_one_is_all_full(steps, interval, first, slope):
    full = full_steps(steps, interval, first, slope)
    assert full[: min(first, steps)] == tuple(range(min(first, steps)))
    assert list(full) == sorted(set(full))
    assert all(0 <= step < steps for step in full)
    assert full_steps(steps, 1, first, 0.0) == tuple(range(steps))


def test_shares_of_flux_are_the_published_ones():
    share = FreshShare()
    assert share.at("double", 0, 19, 5, 50) == pytest.approx(0.1 * 1.5 * 0.4)
    assert share.at("double", 18, 19, 5, 50) == pytest.approx(0.1 * (1.5 - 18 / 27) * 0.4)
    assert share.at("single", 0, 38, 40, 50) == pytest.approx(0.1 * 1.5 * 1.6)
    assert share.at("single", 37, 38, 40, 50) == pytest.approx(0.1 * (1.5 - 37 / 27) * 1.6)


def test_shares_of_a_shallow_model_fall_as_far_as_those_of_flux():
    share = FreshShare()
    # the fourth of six blocks stands where the twentieth of 38 does
    assert share.at("single", 3, 6, 0, 28) == pytest.approx(share.at("single", 19, 38, 0, 28))


def test_shares_follow_the_step_and_stay_between_nothing_and_all():
    share = FreshShare(0.5, layer_slope=0.0, stream_slope=0.0, step_slope=0.4)
    assert share.at("single", 0, 1, 0, 10) == pytest.approx(0.3)
    assert share.at("single", 0, 1, 5, 10) == pytest.approx(0.5)
    assert FreshShare(1.0).at("single", 0, 38, 0, 10) == 1.0
    assert FreshShare.constant(0.3).at("double", 7, 19, 3, 28) == 0.3


@pytest.mark.parametrize("settings", [{"mean": 1.2}, {"mean": -0.1}, {"layer_slope": 2}])
def test_impossible_shares_are_refused(settings):
    with pytest.raises(InputError, match=str(next(iter(settings.values())))):
        FreshShare(**settings)


def test_counts_round_down():
    assert token_count(0.29, 100) == 29  # 0.29 * 100 is a little less in floating point
    assert token_count(0.299, 100) == 29
    assert token_count(1.0, 7) == 7
    assert token_count(0.1, 9) == 0


@pytest.mark.parametrize("references", [(), (Grid(2, 3),)])
def test_attention_received_is_the_mean_of_the_dense_matrix(references):
    layout = TokenLayout(text=5, generation=Grid(3, 4), references=references)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, layout.total, 3, 8, generator=generator) * 2 for _ in range(3)
    )
    groups = tuple(
        group for group in layout.groups if layout.span(group).start < layout.span(group).stop
    )
    pairs = [(source, target) for source in groups for target in groups]
    readout = attend(query, key, value, layout, pairs=pairs, mass_table="queried", chunk=4)
    # the published definition: softmax over keys, mean over heads, mean over queries
    logits = torch.einsum("bqhd,bkhd->bhqk", query.double(), key.double()) / 8**0.5
    dense = logits.softmax(-1).mean(1).mean(1)
    received = attention_received(readout.pairs, layout, groups)
    np.testing.assert_allclose(received, dense, rtol=1e-5, atol=1e-8)
    assert received.sum(-1).numpy() == pytest.approx(1, abs=1e-5)
    generation = attention_received(readout.pairs, layout, ("generation",))
    np.testing.assert_allclose(generation, dense[:, layout.span("generation")], rtol=1e-5)


def test_the_score_adds_age_to_importance_of_length_one():
    importance = torch.tensor([[3.0, 4.0]])
    age = torch.tensor([[0, 2]])
    score = caching_score(importance, age, interval=4, age_weight=0.25)
    np.testing.assert_allclose(score, [[0.6, 0.8 + 0.25 * 2 / 4]], rtol=1e-6)


def test_old_tokens_overtake_important_ones():
    importance, age = torch.tensor([[1.0, 0.9, 0.0]]), torch.zeros(1, 3, dtype=torch.int64)
    chosen = []
    for _ in range(6):
        fresh = best_tokens(caching_score(importance, age, interval=2, age_weight=1.0), 1)
        age = grown_older(age, fresh)
        chosen.append(int(fresh))
    assert chosen[0] == 0
    assert set(chosen) == {0, 1, 2}


def test_ages_count_steps_since_a_token_was_fresh():
    age = torch.tensor([[0, 3, 1], [2, 0, 0]])
    fresh = torch.tensor([[1], [2]])
    assert grown_older(age, fresh).tolist() == [[1, 0, 2], [3, 1, 0]]
    assert grown_older(age, torch.empty(2, 0, dtype=torch.int64)).tolist() == (age + 1).tolist()


def test_ties_go_to_the_lower_index():
    assert best_tokens(torch.ones(1, 6), 3).tolist() == [[0, 1, 2]]
    assert best_tokens(torch.ones(2, 6), 0).shape == (2, 0)


def test_the_bonus_goes_to_the_best_of_every_window():
    score = torch.arange(16.0).reshape(1, 16)
    raised = with_spread_bonus(score, Grid(4, 4), bonus=0.5, window=2)
    best = [5, 7, 13, 15]
    expected = score.clone()
    expected[0, best] *= 1.5
    np.testing.assert_array_equal(raised, expected)


@given(
    rows=st.integers(1, 7),
    columns=st.integers(1, 7),
    window=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_one_token_of_every_window_is_raised(rows, columns, window, seed):
    grid = Grid(rows, columns)
    score = torch.rand(2, grid.size, generator=torch.Generator().manual_seed(seed)) + 0.1
    raised = with_spread_bonus(score, grid, bonus=1.0, window=window)
    assert raised.shape == score.shape
    changed = (raised != score).reshape(2, rows, columns)
    for top in range(0, rows, window):
        for left in range(0, columns, window):
            place = (slice(None), slice(top, top + window), slice(left, left + window))
            assert changed[place].sum(dim=(1, 2)).tolist() == [1, 1]
            part = score.reshape(2, rows, columns)[place].flatten(1)
            np.testing.assert_array_equal(
                part.max(-1).values, part[changed[place].flatten(1)].reshape(2)
            )
    np.testing.assert_array_equal(with_spread_bonus(score, grid, bonus=0.0, window=window), score)


def test_random_importance_repeats_with_its_seed():
    first = random_importance(2, 20, seed=3, step=4, block=5)
    assert first.shape == (2, 20)
    assert torch.equal(first, random_importance(2, 20, seed=3, step=4, block=5))
    assert torch.equal(first[0], first[1])
    for other in ({"seed": 4}, {"step": 5}, {"block": 6}):
        settings = {"seed": 3, "step": 4, "block": 5, **other}
        assert not torch.equal(first, random_importance(2, 20, **settings))
