"""Effects of groups of tokens on values that are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.selection.group_effects import effects, ranking_of, tiles, trials

HALVES = [np.array([0, 1]), np.array([2, 3]), np.array([4, 5])]


@given(rows=st.integers(1, 9), columns=st.integers(1, 9), side=st.integers(1, 5))
def test_tiles_hold_every_token_once_and_are_squares(rows, columns, side):
    found = tiles([Grid(rows, columns), Grid(2, 2)], side)
    assert sorted(np.concatenate(found).tolist()) == list(range(rows * columns + 4))
    for tile in found:
        if tile[0] < rows * columns:
            row, column = np.divmod(tile, columns)
            assert np.ptp(row) < side
            assert np.ptp(column) < side
            assert len(tile) == (np.ptp(row) + 1) * (np.ptp(column) + 1)
    edge = -(-rows // side) * -(-columns // side)
    assert len(found) == edge + (-(-2 // side)) ** 2


def test_tiles_need_places():
    with pytest.raises(InputError, match="give groups of token indices"):
        tiles(Grid(1, 4, placed=False), 2)
    with pytest.raises(InputError, match="at least 1 token"):
        tiles(Grid(4, 4), 0)


@given(
    weights=st.lists(st.floats(-5, 5), min_size=1, max_size=7),
    seed=st.integers(0, 9),
    method=st.sampled_from(["leave-out", "greedy"]),
)
def test_where_tokens_just_add_up_both_methods_give_their_weights(weights, seed, method):
    weight = np.repeat(weights, 2)
    groups = np.arange(len(weight)).reshape(-1, 2)
    asked = []

    def value(tokens):
        asked.append(tokens)
        assert (np.diff(tokens) > 0).all()
        return 3 + weight[tokens].sum()

    found = effects(value, list(groups), method, seed=seed)
    np.testing.assert_allclose(found.effect, 2 * np.array(weights), atol=1e-9)
    assert np.all(np.diff(found.effect[found.order]) <= 1e-9)
    assert len(asked) == found.trials == trials(len(groups), method)


def test_a_copy_elsewhere_hides_an_effect_from_leaving_out_but_not_from_greedy():
    """Groups 0 and 1 hold the same content, group 2 a little of another."""

    def value(tokens):
        present = set(tokens.tolist())
        return bool(present & {0, 1, 2, 3}) + 0.25 * bool(present & {4, 5})

    without = effects(value, HALVES)
    assert without.effect.tolist() == [0, 0, 0.25]
    assert without.order[0] == 2
    greedy = effects(value, HALVES, "greedy")
    assert greedy.order[0] in (0, 1)
    assert greedy.order[1] == 2
    assert sorted(greedy.effect) == [0, 0.25, 1]


def test_groups_are_compared_by_what_a_token_does():
    groups = [np.arange(4), np.array([4])]
    weight = np.array([1.0, 1, 1, 1, 3])
    for method in ("leave-out", "greedy"):
        found = effects(lambda tokens: weight[tokens].sum(), groups, method)
        assert found.effect.tolist() == [4, 3]
        assert found.order.tolist() == [1, 0]


def test_greedy_may_stop_early():
    weight = np.repeat([1.0, 5, 3, 4], 2)
    groups = list(np.arange(8).reshape(4, 2))
    found = effects(lambda tokens: weight[tokens].sum(), groups, "greedy", chosen=1)
    assert found.order.tolist() == [1, 3, 2, 0]
    assert found.trials == trials(4, "greedy", 1) == 5


def test_ties_follow_the_seed():
    orders = {
        tuple(effects(lambda _: 1.0, HALVES, "leave-out", seed=seed).order.tolist())
        for seed in range(20)
    }
    assert len(orders) > 1
    first, again = (effects(lambda _: 1.0, HALVES, "greedy", seed=4).order for _ in range(2))
    assert first.tolist() == again.tolist()


def test_rankings_keep_groups_together():
    weight = np.array([0.0, 0, 9, 9, 4, 4])
    found = effects(lambda tokens: weight[tokens].sum(), HALVES)
    ranking = ranking_of(found, HALVES, "planted", {"a": 1}, seed=1)
    assert set(ranking.order[:2]) == {2, 3}
    assert set(ranking.order[2:4]) == {4, 5}
    np.testing.assert_allclose(ranking.score, weight)
    greedy = effects(lambda tokens: weight[tokens].sum(), HALVES, "greedy")
    assert ranking_of(greedy, HALVES, "planted", {}).score is None


@pytest.mark.parametrize(
    ("groups", "settings", "message"),
    [
        ([[0, 1], [1, 2]], {}, "exactly once"),
        ([[0], [2]], {}, "exactly once"),
        ([[0], []], {}, "not be empty"),
        ([], {}, "not be empty"),
        ([[0], [1]], {"method": "shapley"}, "not 'shapley'"),
        ([[0], [1]], {"chosen": 1}, "only the greedy"),
        ([[0], [1]], {"method": "greedy", "chosen": 3}, "1 to 2 groups"),
    ],
)
def test_what_cannot_be_tried_is_refused_before_anything_runs(groups, settings, message):
    def never(tokens):
        raise AssertionError("ran")

    with pytest.raises(InputError, match=message):
        effects(never, [np.array(group, int) for group in groups], **settings)


def test_scores_that_are_no_numbers():
    with pytest.raises(InputError, match="with 4 tokens is nan"):
        effects(lambda tokens: 1.0 if len(tokens) == 6 else float("nan"), HALVES)
