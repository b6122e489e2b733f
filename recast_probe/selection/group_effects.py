"""Which groups of tokens an outcome depends on, found by trying: leave them out, or add them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.selection.rankings import Ranking

METHODS = ("leave-out", "greedy")


def tiles(grids: Grid | Sequence[Grid], side: int) -> list[np.ndarray]:
    """Square tiles of `side` x `side` tokens, row by row; smaller ones at the far edges.

    Returns:
        The token indices of each tile, ascending, int64.

    Raises:
        InputError: a side below 1, no grid, or tokens that have no place in their image.
    """
    grids = (grids,) if isinstance(grids, Grid) else tuple(grids)
    if side < 1:
        raise InputError(f"A tile has a side of at least 1 token, not {side}.")
    if not grids or not all(grid.placed for grid in grids):
        raise InputError(
            "Tiles need reference tokens that stand for places of an image; give groups of token "
            "indices instead."
        )
    found, start = [], 0
    for grid in grids:
        index = start + np.arange(grid.size).reshape(grid.rows, grid.columns)
        found += [
            index[row : row + side, column : column + side].ravel()
            for row in range(0, grid.rows, side)
            for column in range(0, grid.columns, side)
        ]
        start += grid.size
    return found


def trials(groups: int, method: str, chosen: int | None = None) -> int:
    """How many times `effects` asks for a value."""
    if method == "leave-out":
        return 1 + groups
    rounds = groups if chosen is None else min(chosen, groups)
    return 1 + sum(groups - done for done in range(rounds))


@dataclass(frozen=True)
class Effects:
    """What each group of tokens does to a value.

    Attributes:
        order: int64 (groups,), the group with the largest effect for each of its tokens first.
        effect: float64 (groups,), by group: the change of the value that its tokens make, given
            the other tokens that were present when the method tried them.
        start: the value that effects are changes of: with all tokens ("leave-out") or with none
            ("greedy").
        trials: how many values were asked for.
        method: how groups were tried.
    """

    order: np.ndarray
    effect: np.ndarray
    start: float
    trials: int
    method: str


def effects(
    value: Callable[[np.ndarray], float],
    groups: Sequence[np.ndarray],
    method: str = "leave-out",
    chosen: int | None = None,
    seed: int = 0,
) -> Effects:
    """Try groups of tokens, and order them by what each of their tokens does to a value.

    "leave-out" takes one group at a time away from all tokens; a group whose content is elsewhere
    too shows no effect. "greedy" starts from none and adds in each round the group that raises the
    value most for each of its tokens; groups that were not chosen keep the effect they had in the
    last round that tried them.

    Args:
        value: of an outcome in which these tokens (ascending indices) are present; larger is
            better.
        groups: every token in exactly one of them.
        chosen: how many groups "greedy" adds before the rest follow by their last effect; None for
            all, which asks for G * (G + 1) / 2 + 1 values.
        seed: which of several groups with equal effects comes first.

    Raises:
        InputError: groups that overlap or leave tokens out, an unknown method, or a value that is
            not a finite number.
    """
    groups = [np.asarray(group, np.int64) for group in groups]
    every = check_groups(groups)
    if method not in METHODS:
        raise InputError(f"method is one of {METHODS}, not {method!r}.")
    if chosen is not None and (method != "greedy" or not 1 <= chosen <= len(groups)):
        raise InputError(
            f"chosen={chosen}: only the greedy method chooses, and 1 to {len(groups)} groups."
        )
    sizes = np.array([len(group) for group in groups])
    # numbers drawn once decide all ties
    lot = np.random.default_rng(seed).permutation(len(groups))
    asked = 0

    def valued(tokens: np.ndarray) -> float:
        nonlocal asked
        asked += 1
        found = float(value(np.sort(tokens)))
        if not np.isfinite(found):
            raise InputError(f"The score of an image with {len(tokens)} tokens is {found}.")
        return found

    start = valued(every if method == "leave-out" else every[:0])
    effect = np.zeros(len(groups))
    if method == "leave-out":
        for index, group in enumerate(groups):
            effect[index] = start - valued(np.setdiff1d(every, group))
        return Effects(np.lexsort((lot, -effect / sizes)), effect, start, asked, method)
    present, before = every[:0], start
    order: list[int] = []
    for _ in range(len(groups) if chosen is None else chosen):
        left = [index for index in range(len(groups)) if index not in order]
        for index in left:
            effect[index] = valued(np.concatenate([present, groups[index]])) - before
        best = min(left, key=lambda index: (-effect[index] / sizes[index], lot[index]))
        order.append(best)
        present, before = np.concatenate([present, groups[best]]), before + effect[best]
    rest = [index for index in np.lexsort((lot, -effect / sizes)) if index not in order]
    return Effects(np.array([*order, *rest], np.int64), effect, start, asked, method)


def check_groups(groups: Sequence[np.ndarray]) -> np.ndarray:
    """All tokens of the groups, int64 (tokens,), ascending.

    Raises:
        InputError: an empty group, or not every token from 0 on exactly once.
    """
    every = np.sort(np.concatenate([*groups, np.empty(0, np.int64)]))
    if not groups or not all(map(len, groups)) or not np.array_equal(every, np.arange(len(every))):
        raise InputError("Groups of tokens must not be empty, and hold every token exactly once.")
    return every


def ranking_of(
    found: Effects,
    groups: Sequence[np.ndarray],
    name: str,
    details: dict[str, Any],
    seed: int = 0,
) -> Ranking:
    """Tokens in the order of their groups, shuffled by the seed within each group.

    After "leave-out" the ranking's score is the effect of a token's group for each of its tokens.
    After "greedy" there is none: an effect there belongs to the round that it was seen in.
    """
    draw = np.random.default_rng(seed)
    order = np.concatenate([draw.permutation(np.asarray(groups[each])) for each in found.order])
    if found.method == "greedy":
        return Ranking(order, name, None, details)
    score = np.empty(len(order))
    for group, effect in zip(groups, found.effect, strict=True):
        score[np.asarray(group)] = effect / len(group)
    return Ranking(order, name, score, details)
