"""Recording how alike reference and generation tokens are in the hidden states of the blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from recast_probe._utils.checks import check_int
from recast_probe.blocks import select_blocks
from recast_probe.errors import InputError
from recast_probe.interventions.base import (
    Intervention,
    RunContext,
    RunHook,
    blocks_with_states,
    text_first,
)
from recast_probe.interventions.needs import Needs
from recast_probe.layout import TokenLayout

if TYPE_CHECKING:
    from recast_probe.pipelines.base import Family


class SimilarityRecorder(RunHook):
    """Cosine between the mean generation token and every reference token, where blocks end.

    The states are those that leave a block, in the conditional branch; steps must have the full
    reference.

    Attributes:
        found: by step, float64 (prompt, block, reference token).
    """

    def __init__(self, run: RunContext, blocks: Any, steps: Sequence[int]) -> None:
        self.blocks = select_blocks(blocks, run.block_kinds)
        self._run, self._steps, self._step = run, set(steps), -1
        self.found: dict[int, np.ndarray] = {}

    def begin_call(self, step: int, branch: str, layout: TokenLayout) -> None:
        self._step = step if branch == "conditional" and step in self._steps else -1

    @contextmanager
    def watching(self, family: Family) -> Iterator[SimilarityRecorder]:
        """Hooks on the chosen ones of all blocks, taken off on the way out.

        Raises:
            UnsupportedPipelineError: the family's tokens have no hidden states.
        """
        modules = blocks_with_states(family, self._run)
        with ExitStack() as stack:
            for place, block in enumerate(self.blocks):
                handle = modules[block].register_forward_hook(self._hook(place, family))
                stack.callback(handle.remove)
            yield self

    def _hook(self, place: int, family: Family) -> Any:
        def record(
            _: Any, __: Any, output: torch.Tensor | tuple[torch.Tensor, torch.Tensor]
        ) -> None:
            if self._step < 0:
                return
            run = self._run
            given = family.states_in_order(text_first(family, output), run.layout)
            ordered = torch.cat(given, dim=1)
            states = ordered[:, run.layout.text :].detach().float()
            generation = states[:, : run.layout.generation.size].mean(dim=1, keepdim=True)
            reference = states[:, run.layout.generation.size :]
            found = functional.cosine_similarity(generation, reference, dim=-1)
            shape = (len(found), len(self.blocks), run.reference_tokens)
            stored = self.found.setdefault(self._step, np.full(shape, np.nan))
            stored[:, place] = found.cpu().numpy()

        return record

    def result(self, provenance: dict[str, Any]) -> Cosines:
        return Cosines(self.found)


@dataclass(frozen=True, eq=False)
class Cosines:
    """What ``Similarity`` found in a run.

    Attributes:
        by_step: float64 (prompt, block, reference token), cosine with the mean generation token.
    """

    by_step: dict[int, np.ndarray]


@dataclass(frozen=True)
class Similarity(Intervention):
    """Record the cosine of each reference token with the mean generation token; change nothing.

    The result's ``similarity`` has it by step; ``rank.cosine`` makes a ranking of it. The paper
    names a cosine score without defining it; this is one possible definition.

    Attributes:
        blocks: blocks at whose end tokens are compared; see `select_blocks`. By default the
            paper's, and all blocks of a model that has no single-stream ones.
        step: the step; it must run with the full reference.

    Raises:
        InputError: when the run is prepared: no reference, or a block or step that it lacks.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe = rp.Probe(tiny.build_tiny_pipeline())
        >>> settings = {"steps": 2, "progress": False, "interventions": [Similarity("double")]}
        >>> result = probe.generate(tiny.tiny_image(), "a cat", **settings)
        >>> result.similarity[0].shape  # prompt, block, reference token
        (1, 2, 16)
    """

    blocks: Any = "paper"
    step: int = 0

    def prepare(self, run: RunContext) -> None:
        if not run.reference_tokens:
            raise InputError("There are no reference tokens to compare; give a reference image.")
        select_blocks(self.blocks, run.block_kinds)
        check_int("step", self.step, 0)
        if self.step >= run.steps:
            raise InputError(
                f"step={self.step} is outside the run: steps are 0 to {run.steps - 1}."
            )

    def needs(self, run: RunContext) -> Needs:
        step = (self.step,)
        return Needs(reads=step, reference_rows=step, full_reference=step)

    @contextmanager
    def attached(self, family: Family, run: RunContext) -> Iterator[SimilarityRecorder]:
        recorder = SimilarityRecorder(run, self.blocks, [self.step])
        with recorder.watching(family):
            yield recorder
