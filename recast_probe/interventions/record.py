"""Recording activations of a token group, where they are asked for and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recast_probe._utils.checks import check_indices
from recast_probe._utils.text_format import memory
from recast_probe.blocks import select_blocks
from recast_probe.errors import InputError, VerificationError
from recast_probe.interventions.base import Intervention, RunContext, describe_blocks
from recast_probe.interventions.places import Visitor, checked_what, group_positions
from recast_probe.profiles.activations import Activations, Place, recorded_bytes

if TYPE_CHECKING:
    from recast_probe.pipelines.base import Family

LIMIT = 2 * 10**9


def checked_steps(steps: Any, available: int) -> list[int]:
    """Step indices, ascending; None for all.

    Raises:
        InputError: none, or one outside the run.
    """
    return check_indices("steps", steps, available)


def describe_indices(indices: Sequence[int] | None) -> Any:
    """Chosen tokens of a group, ready for JSON."""
    return "all" if indices is None else [int(index) for index in indices]


class Recorder(Visitor):
    """Copies what it is shown to the CPU.

    Args:
        dtype: the transformer's. Narrower numbers, as autocast makes them, are widened to it, which
            changes none of them.
    """

    def __init__(self, *arguments: Any, dtype: torch.dtype) -> None:
        super().__init__(*arguments)
        self._dtype = dtype
        self.values: dict[Place, Tensor] = {}

    def visit(self, place: Place, values: list[Tensor]) -> None:
        # these are copies of their own already
        found = torch.cat([each.detach().cpu() for each in values], dim=1)
        narrower = found.element_size() < self._dtype.itemsize
        self.values[place] = found.to(self._dtype) if narrower else found

    def facts(self) -> dict[str, Any]:
        return {"bytes": sum(each.numel() * each.element_size() for each in self.values.values())}


@dataclass(frozen=True)
class Record(Intervention):
    """Record activations of a token group; change nothing. The result's ``activations`` has them.

    Interventions act in their order in the list: what stands before changes what is recorded.

    Attributes:
        what: "keys", "values", "attention output", "residual" (the residual stream as it leaves a
            block), "embeddings" (as it enters the first), or several of them.
        tokens: "text", its parts "padding", "vision" and "prompt", "generation", "reference",
            "reference_<i>" or "all".
        indices: some tokens of the group, by index within it; None for all.
        blocks: see ``select_blocks``.
        steps: step index or indices; None for all.
        limit: most bytes to record; more is refused before anything runs.
    """

    what: str | tuple[str, ...] = "residual"
    tokens: str = "reference"
    indices: tuple[int, ...] | None = None
    blocks: Any = "all"
    steps: Any = None
    limit: int = LIMIT

    def __post_init__(self) -> None:
        checked_what(self.what)

    def bytes_in(self, family: Family, run: RunContext) -> int:
        """Exact number of bytes that will be recorded in a run.

        Raises:
            InputError: a block, step or token that the run does not have.
        """
        transformer = family.transformer
        return recorded_bytes(
            checked_what(self.what),
            tokens=len(group_positions(run, self.tokens, self.indices)),
            blocks=len(select_blocks(self.blocks, run.block_kinds)),
            steps=len(checked_steps(self.steps, run.steps)),
            width=family.width,
            item_bytes=next(transformer.parameters()).element_size(),
            prompts=run.prompts,
            branches=len(run.branches),
        )

    def check_limit(self, needed: int) -> None:
        """Raise InputError when so many bytes are more than the limit."""
        if needed > self.limit:
            raise InputError(
                f"Recording would take {memory(needed)} ({needed:,} bytes), more than the limit of "
                f"{memory(self.limit)}; choose fewer tokens, blocks or steps, or a higher limit."
            )

    def prepare(self, run: RunContext) -> None:
        group_positions(run, self.tokens, self.indices)
        select_blocks(self.blocks, run.block_kinds)
        checked_steps(self.steps, run.steps)

    def reading_steps(self, run: RunContext) -> set[int]:
        return set(checked_steps(self.steps, run.steps))

    def full_reference_steps(self, run: RunContext) -> set[int]:
        positions = group_positions(run, self.tokens, self.indices)
        full = bool(positions[-1] >= run.layout.span("reference").start)
        return self.reading_steps(run) if full else set()

    @contextmanager
    def attached(self, family: Family, run: RunContext) -> Iterator[Recorder]:
        needed = self.bytes_in(family, run)
        self.check_limit(needed)
        if run.activations is not None:
            raise InputError(
                "A run records activations once; give one Record several kinds, or tokens='all'."
            )
        recorder = Recorder(
            run,
            checked_what(self.what),
            group_positions(run, self.tokens, self.indices),
            select_blocks(self.blocks, run.block_kinds),
            checked_steps(self.steps, run.steps),
            run.branches,
            dtype=next(family.transformer.parameters()).dtype,
        )
        run.activations = Activations(
            recorder.values,
            recorder.positions,
            self.tokens,
            run.layout,
            run.timesteps,
            tuple(run.block_kinds),
        )
        with recorder.watching(family):
            yield recorder
        found = run.activations.bytes
        if found != needed:
            raise VerificationError(
                f"{found:,} bytes were recorded, and {needed:,} were expected; some blocks did not "
                "run, or run in another precision than the transformer's own."
            )

    def describe(self) -> dict[str, Any]:
        return {
            "name": "Record",
            "what": list(checked_what(self.what)),
            "tokens": self.tokens,
            "indices": describe_indices(self.indices),
            "blocks": describe_blocks(self.blocks),
            "steps": None if self.steps is None else describe_blocks(self.steps),
        }
