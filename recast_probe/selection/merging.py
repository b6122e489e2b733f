"""Merging similar reference tokens: bipartite soft matching (ToMe) on the reference grid.

One token of every window of the grid is a destination, all others are sources. Each source has one
edge, to the destination it is most similar to by cosine; the best edges are merged until the budget
is met. With windows of 2 x 2 this is the matching of ToMe for Stable Diffusion without its random
choice of destinations (Bolya and Hoffman 2023, Section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recast_probe.errors import InputError
from recast_probe.layout import Grid


@dataclass(frozen=True, eq=False)
class Groups:
    """Which token stands for which.

    Attributes:
        kept: int64 (groups,), the token whose position stands for each group, ascending.
        group: int64 (tokens,), the group that each token belongs to.
    """

    kept: torch.Tensor
    group: torch.Tensor

    @property
    def sizes(self) -> torch.Tensor:
        """Tokens in each group, int64 (groups,)."""
        return torch.bincount(self.group, minlength=len(self.kept))

    def mean(self, tokens: torch.Tensor) -> torch.Tensor:
        """The mean token of each group: (..., tokens, width) to (..., groups, width).

        A group of one token keeps its exact value.
        """
        group = self.group.to(tokens.device)
        shape = (*tokens.shape[:-2], len(self.kept), tokens.shape[-1])
        total = torch.zeros(shape, dtype=torch.float32, device=tokens.device)
        total.index_add_(-2, group, tokens.float())
        return (total / self.sizes.to(tokens.device)[:, None]).to(tokens.dtype)


@dataclass(frozen=True, eq=False)
class Matching:
    """The best edge of every source token, best edge first.

    Attributes:
        source, destination: int64 (sources,), token indices of each edge's two ends.
        tokens: number of tokens.
    """

    source: torch.Tensor
    destination: torch.Tensor
    tokens: int

    @property
    def destinations(self) -> int:
        """Number of destination tokens, the smallest budget that can be met."""
        return self.tokens - len(self.source)

    def groups(self, budget: int) -> Groups:
        """Merge along the best edges until `budget` groups are left.

        Raises:
            InputError: more groups than tokens, or fewer than destinations.
        """
        if not self.destinations <= budget <= self.tokens:
            raise InputError(
                f"Cannot merge {self.tokens} reference tokens into {budget}; windows of this size "
                f"allow {self.destinations} to {self.tokens}. Larger windows allow fewer."
            )
        merged = self.tokens - budget
        stands_for = torch.arange(self.tokens)
        stands_for[self.source[:merged]] = self.destination[:merged]
        kept, group = torch.unique(stands_for, return_inverse=True)
        return Groups(kept, group)


def window_for(budget: int, grids: Sequence[Grid]) -> int:
    """Side of the smallest square windows that leave at most `budget` destinations.

    Raises:
        InputError: even one destination for every reference image is too many.
    """
    largest = max(max(grid.rows, grid.columns) for grid in grids)
    for window in range(2, largest + 1):
        if sum(len(destinations(grid, window)) for grid in grids) <= budget:
            return window
    if len(grids) <= budget:
        return max(2, largest)
    raise InputError(f"{len(grids)} reference images cannot be merged into {budget} tokens.")


def match(features: torch.Tensor, grids: Sequence[Grid], window: int) -> Matching:
    """Match each source token with its most similar destination.

    Args:
        features: (tokens, width), all reference images one after the other.
        grids: their grids.
        window: side of the square windows, in tokens; the first token of each is a destination.
            Windows that would reach over the edge of a grid have none, as in ToMe.

    Raises:
        InputError: another number of tokens than the grids have, or a window below 2.
    """
    if features.ndim != 2 or len(features) != sum(grid.size for grid in grids):
        raise InputError(
            f"Features of shape {tuple(features.shape)} do not fit the grids {list(grids)}."
        )
    if window < 2:
        raise InputError(f"Windows have a side of at least 2 tokens, not {window}.")
    starts = np.cumsum([0, *(grid.size for grid in grids)])
    chosen = np.concatenate(
        [start + destinations(grid, window) for start, grid in zip(starts, grids, strict=False)]
    )
    destination = torch.from_numpy(chosen)
    source = torch.from_numpy(np.setdiff1d(np.arange(starts[-1]), chosen))
    direction = features.detach().cpu().double()
    direction = direction / direction.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    best, index = (direction[source] @ direction[destination].T).max(-1)
    order = best.argsort(descending=True, stable=True)
    return Matching(source[order], destination[index[order]], int(starts[-1]))


def destinations(grid: Grid, window: int) -> np.ndarray:
    """Index of the first token of every whole window, at least one: int64 (windows,), ascending."""
    rows = np.arange(max(1, grid.rows // window)) * window
    columns = np.arange(max(1, grid.columns // window)) * window
    return (rows[:, None] * grid.columns + columns).ravel()
