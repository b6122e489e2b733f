"""Every block on its own: which one ranks best, which worst, and how the middle one does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from recast_probe._utils.markup import html_table
from recast_probe.errors import InputError
from recast_probe.profiles.profile_input import as_profile
from recast_probe.selection.rankings import Ranking, single_block

if TYPE_CHECKING:
    from recast_probe.profiles.profile import AttentionProfile


@dataclass(frozen=True, eq=False)
class SingleBlocks:
    """What rankings by one block each are worth.

    The best and the worst are picked after the fact, so they bound what a single block can do; the
    middle one is picked by its place alone.

    Attributes:
        rankings: by block index, in the order in which blocks run.
        values: what the judge said of each, by block index; larger is better.

    Examples:
        >>> first, second = (Ranking(np.array(order), "mine") for order in ([0, 1], [1, 0]))
        >>> SingleBlocks({3: first, 5: second}, {3: 0.8, 5: 0.6}).best
        3
    """

    rankings: dict[int, Ranking]
    values: dict[int, float]

    @property
    def best(self) -> int:
        """The block with the largest value; the first of equal ones."""
        return max(self.values, key=lambda block: self.values[block])

    @property
    def worst(self) -> int:
        """The block with the smallest value; the first of equal ones."""
        return min(self.values, key=lambda block: self.values[block])

    @property
    def middle(self) -> int:
        """The block half way down those that were judged; the earlier of two."""
        blocks = list(self.values)
        return blocks[(len(blocks) - 1) // 2]

    def _named(self) -> dict[str, int]:
        return {"best": self.best, "middle": self.middle, "worst": self.worst}

    def __repr__(self) -> str:
        parts = [f"{name} block {b} ({self.values[b]:.4g})" for name, b in self._named().items()]
        return f"SingleBlocks({len(self.values)} blocks: {', '.join(parts)})"

    def _repr_html_(self) -> str:
        names: dict[int, list[str]] = {}
        for name, block in self._named().items():
            names.setdefault(block, []).append(name)
        rows = [
            (block, f"{value:.4g}", ", ".join(names.get(block, [])))
            for block, value in self.values.items()
        ]
        return html_table(repr(self), rows, head=("block", "value", ""))


def single_blocks(
    profile: AttentionProfile,
    judge: Callable[[Ranking], float],
    blocks: Any = "all",
    steps: int | Sequence[int] | None = 0,
    heads: int | Sequence[int] | None = None,
) -> SingleBlocks:
    """Rank by every block alone, and judge each ranking.

    Args:
        judge: of a ranking, larger is better: the share of a mask among its best tokens, or the
            score of an image that was made with it.
        blocks: the blocks; see `select_blocks`.
        steps, heads: an index, or several that are averaged; None for all recorded ones.

    Raises:
        InputError: a block that was not recorded, or a judgement that is not a finite number.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> scores = np.stack([np.arange(16.0), -np.arange(16.0) + 15])
        >>> profile = planted(scores[None, :, None])
        >>> single_blocks(profile, lambda ranking: float(ranking.order[0]))
        SingleBlocks(2 blocks: best block 0 (15), middle block 0 (15), worst block 1 (0))
    """
    profile = as_profile(profile)
    chosen = [int(block) for block in profile.sel(blocks, steps, heads).score["block"]]
    rankings = {block: single_block(profile, block, steps, heads) for block in chosen}
    values = {block: float(judge(ranking)) for block, ranking in rankings.items()}
    wrong = [block for block, value in values.items() if not np.isfinite(value)]
    if wrong:
        raise InputError(f"The judge gave block {wrong[0]} the value {values[wrong[0]]}.")
    return SingleBlocks(rankings, values)
