"""What interventions in chosen blocks, steps and heads have in common."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from recast_probe._utils.checks import check_indices
from recast_probe.blocks import select_blocks
from recast_probe.interventions.base import CallHook, Intervention, RunContext

Indices = int | Sequence[int] | None


def indices(name: str, given: Any) -> tuple[int, ...] | None:
    """Indices from 0 on, ascending and without repeats; None stays, and stands for all.

    Raises:
        InputError: something else.
    """
    return None if given is None else tuple(check_indices(name, given, empty=True))


class Selective(Intervention):
    """Acts in chosen blocks, steps and heads.

    Attributes:
        blocks: see ``select_blocks``.
        steps, heads: an index, several, or None for all.
    """

    blocks: Any
    steps: Any
    heads: Any = None

    def chosen_blocks(self, run: RunContext) -> list[int]:
        """Blocks in which it acts."""
        return select_blocks(self.blocks, run.block_kinds)

    def chosen_steps(self, run: RunContext) -> list[int]:
        """Steps in which it acts."""
        return check_indices("steps", self.steps, run.steps, empty=True)

    def prepare(self, run: RunContext) -> None:
        self.chosen_blocks(run)
        self.chosen_steps(run)
        check_indices("heads", self.heads, run.heads, empty=True)


class SelectiveHook(CallHook):
    """Acts inside the attention of chosen blocks, steps and branches.

    Attributes:
        blocks, steps: ascending.
        branches: of guidance; None for all.
    """

    def __init__(
        self,
        run: RunContext,
        blocks: Collection[int],
        steps: Collection[int],
        branches: Collection[str] | None = None,
    ) -> None:
        self.run = run
        self.blocks, self.steps, self.branches = sorted(blocks), sorted(steps), branches

    @property
    def acts(self) -> bool:
        """In the call that runs."""
        return self.step in self.steps and (self.branches is None or self.branch in self.branches)

    def changes_attention(self, block: int) -> bool:
        return self.acts and block in self.blocks
