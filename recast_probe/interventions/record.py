"""Recording activations of a token group, where they are asked for and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recast_probe._utils.checks import check_indices
from recast_probe._utils.text_format import memory
from recast_probe.errors import InputError, VerificationError
from recast_probe.interventions.base import RunContext
from recast_probe.interventions.needs import Needs
from recast_probe.interventions.places import ActivationHook, AtHookPoints, checked_what
from recast_probe.profiles.activations import Activations, HookPoint, recorded_bytes

if TYPE_CHECKING:
    from recast_probe.pipelines.base import Family

LIMIT = 2 * 10**9


class ActivationRecorder(ActivationHook):
    """Copies what it is shown to the CPU.

    Args:
        dtype: the transformer's. Narrower numbers, as autocast makes them, are widened to it, which
            changes none of them.
    """

    def __init__(self, settings: Record, run: RunContext, dtype: torch.dtype) -> None:
        super().__init__(settings, run)
        self._dtype = dtype
        self._values: dict[HookPoint, Tensor] = {}
        self.activations = Activations(
            self._values,
            self.positions,
            settings.tokens,
            run.layout,
            run.timesteps,
            tuple(run.block_kinds),
        )

    def visit(self, point: HookPoint, values: list[Tensor]) -> None:
        # already copies, so moving them to the CPU is enough
        found = torch.cat([each.detach().cpu() for each in values], dim=1)
        narrower = found.element_size() < self._dtype.itemsize
        self._values[point] = found.to(self._dtype) if narrower else found

    def facts(self) -> dict[str, Any]:
        return {"bytes": self.activations.bytes}

    def result(self, provenance: dict[str, Any]) -> Activations:
        return replace(self.activations, provenance=provenance)


@dataclass(frozen=True)
class Record(AtHookPoints):
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

    Raises:
        InputError: an unknown kind of activations. Before the run: a block, step or token that it
            does not have, or more bytes than the limit.
        VerificationError: the run did not hand over exactly what was expected.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe = rp.Probe(tiny.build_tiny_pipeline())
        >>> settings = {"steps": 2, "progress": False}
        >>> record = Record("keys", "text", blocks=[0, 3])
        >>> result = probe.generate(tiny.tiny_image(), "a cat", interventions=[record], **settings)
        >>> result.activations.blocks
        [0, 3]
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
            self.kinds(),
            tokens=len(self.positions(run)),
            blocks=len(self.chosen_blocks(run)),
            steps=len(self.chosen_steps(run)),
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

    def chosen_steps(self, run: RunContext) -> list[int]:
        return check_indices("steps", self.steps, run.steps)

    def needs(self, run: RunContext) -> Needs:
        return replace(super().needs(run), once="record the activations")

    @contextmanager
    def attached(self, family: Family, run: RunContext) -> Iterator[ActivationRecorder]:
        needed = self.bytes_in(family, run)
        self.check_limit(needed)
        dtype = next(family.transformer.parameters()).dtype
        with ActivationRecorder(self, run, dtype).watching(family) as recorder:
            yield recorder
        found = recorder.activations.bytes
        if found != needed:
            raise VerificationError(
                f"{found:,} bytes were recorded, and {needed:,} were expected; some blocks did not "
                "run, or run in another precision than the transformer's own."
            )

    def describe(self) -> dict[str, Any]:
        settings = super().describe()
        del settings["limit"]  # it changes nothing that is recorded
        indices = "all" if self.indices is None else settings["indices"]
        return settings | {"what": list(self.kinds()), "indices": indices}
