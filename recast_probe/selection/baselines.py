"""Orders of reference tokens that need no model: even spread, chance per step, the true subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.selection.rankings import Ranking, random


def uniform_grid(grids: Grid | Sequence[Grid]) -> Ranking:
    """An order whose first tokens are spread evenly over the reference, at any budget.

    Farthest point sampling: each next token is the one farthest from all earlier ones (distances in
    tokens, equal ones by token index), beginning at the centre. Several reference images take
    turns, in proportion to their tokens.

    Raises:
        InputError: no grid, or tokens that have no place in their image.

    Examples:
        >>> uniform_grid(Grid(3, 3)).order[:5]
        array([4, 0, 2, 6, 8])
    """
    grids = (grids,) if isinstance(grids, Grid) else tuple(grids)
    if not grids:
        raise InputError("A uniform grid needs the grid of at least one reference image.")
    if not all(grid.placed for grid in grids):
        raise InputError(
            "These reference tokens stand for no places of an image, so they cannot be spread over "
            "it; a random ranking is the control here."
        )
    starts = np.cumsum([0, *(grid.size for grid in grids)])
    orders = [start + _farthest_first(grid) for start, grid in zip(starts, grids, strict=False)]
    turn = np.concatenate([(np.arange(len(order)) + 0.5) / len(order) for order in orders])
    order = np.concatenate(orders)[np.argsort(turn, kind="stable")]
    return Ranking(order, "uniform grid", None, {"grids": [[g.rows, g.columns] for g in grids]})


def _farthest_first(grid: Grid) -> np.ndarray:
    place = np.stack(np.divmod(np.arange(grid.size), grid.columns), axis=1).astype(np.float64)
    centre = (np.array([grid.rows, grid.columns]) - 1) / 2
    order = np.empty(grid.size, np.int64)
    order[0] = np.argmin(((place - centre) ** 2).sum(1))
    nearest = np.full(grid.size, np.inf)
    for index in range(1, grid.size):
        last = place[order[index - 1]]
        nearest = np.minimum(nearest, ((place - last) ** 2).sum(1))
        order[index] = np.argmax(nearest)
    return order


def mask_oracle(mask: np.ndarray, within: Ranking | None = None, seed: int = 0) -> Ranking:
    """The true subject first: tokens inside a mask, then all others.

    Args:
        mask: bool, (rows, columns) or flat over all reference tokens; see `Probe.reference_mask`.
        within: the order among tokens inside, and among tokens outside; by default both are
            shuffled by the seed.

    Raises:
        InputError: a mask that is not boolean, no token inside or every one, or another number of
            tokens than `within`.

    Examples:
        >>> mask_oracle(np.array([[False, True], [True, False]])).top(2)
        array([1, 2])
    """
    values = np.asarray(mask)
    if values.dtype != bool:
        raise InputError(f"The mask must be true or false for every token, not {values.dtype}.")
    inside = values.ravel()
    by = random(inside.size, seed) if within is None else within
    if by.tokens != inside.size:
        raise InputError(f"The mask has {inside.size} tokens, but {by!r} orders {by.tokens}.")
    if inside.all() or not inside.any():
        raise InputError(
            f"The mask has {'every' if inside.size and inside.all() else 'no'} one of its "
            f"{inside.size} tokens inside, so it puts none before the others: that would be the "
            "order among them alone."
        )
    order = by.order[np.argsort(~inside[by.order], kind="stable")]
    details = {"inside": int(inside.sum()), "within": by.name, **by.details}
    return Ranking(order, "mask oracle", None, details)


@dataclass(frozen=True)
class RandomPerStep:
    """A new random order in every step: chance without the luck of one draw.

    Attributes:
        tokens: number of reference tokens.
        seed: the order in a step is that of (seed, step).

    Raises:
        InputError: fewer than one token.

    Examples:
        >>> RandomPerStep(16).at(step=3).tokens
        16
    """

    tokens: int
    seed: int = 0
    name: str = "random per step"

    def __post_init__(self) -> None:
        random(self.tokens, self.seed)  # refuses what cannot be ordered

    def at(self, step: int) -> Ranking:
        """The order in one step."""
        order = np.random.default_rng((self.seed, step)).permutation(self.tokens)
        return Ranking(order, self.name, None, {"seed": self.seed, "step": step})
