"""ReCAST in one run: profile one full step, rank, prune in the steps after it (Section 3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from recast_probe._utils.checks import whole_number
from recast_probe.blocks import select_blocks
from recast_probe.errors import InputError
from recast_probe.interventions.base import (
    Attachment,
    Intervention,
    Recording,
    RunContext,
    StepContext,
    describe_blocks,
)
from recast_probe.interventions.prune import (
    as_budget,
    check_budget,
    describe_budget,
    tokens_kept,
)
from recast_probe.interventions.similarity import SimilarityRecorder
from recast_probe.selection.mass import MassShare
from recast_probe.selection.rankings import Ranking, cosine, cross_image, self_attention

if TYPE_CHECKING:
    from recast_probe.pipelines.base import Family

QUERIES = {"cross-image": "generation", "self-attention": "reference"}
RANKINGS = (*QUERIES, "cosine")


@dataclass(frozen=True)
class Recast(Intervention):
    """Rank the reference tokens by what one step shows of them, then prune.

    Steps up to and including ``profile_step`` run with the full sequence. The profiling is part of
    that step and not an extra pass.

    Attributes:
        budget: how many tokens stay in each later step: a number, ``Fixed``, ``Adaptive``, another
            of ``recast_probe.budget``, or a ``MassShare`` of the ranking that the run makes.
        blocks: blocks whose scores are averaged (Eq. 3); "paper" is the paper's own choice.
        profile_step: the first step that is profiled.
        ranking: "cross-image" (Eq. 3), "self-attention" (attention among reference tokens, as
            Attn-Prune after FastV) or "cosine" (see ``Similarity``).
        every: rank again every so many steps. A step that ranks again runs with the full
            reference, so that tokens that were dropped can come back. None ranks once.
        worst_first: keep the worst tokens: a control that should do harm.
    """

    budget: Any
    blocks: Any = "paper"
    profile_step: int = 0
    ranking: str = "cross-image"
    every: int | None = None
    worst_first: bool = False
    ranks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "budget", as_budget(self.budget, ranked=True))
        object.__setattr__(self, "profile_step", whole_number("profile_step", self.profile_step, 0))
        if self.ranking not in RANKINGS:
            raise InputError(f"ranking must be one of {RANKINGS}, not {self.ranking!r}.")
        if self.every is not None and whole_number("every", self.every, 1) < 2:
            raise InputError(
                f"every={self.every}: ranking again in every step would never prune; give 2 or "
                "more, or None to rank once."
            )
        if isinstance(self.budget, MassShare) and (self.ranking == "cosine" or self.worst_first):
            raise InputError(
                f"{self.budget!r} needs a ranking by attention, best first: cosines and reversed "
                "scores have no mass."
            )

    def ranking_steps(self, run: RunContext) -> list[int]:
        """The full steps that are profiled. A last step is not: nothing would follow it."""
        steps = list(range(self.profile_step, run.steps, self.every or run.steps))
        return steps[:1] + [step for step in steps[1:] if step < run.steps - 1]

    def recording(self, run: RunContext) -> Recording | None:
        if self.ranking not in QUERIES:
            return None
        return Recording(self.blocks, tuple(self.ranking_steps(run)), QUERIES[self.ranking])

    def prepare(self, run: RunContext) -> None:
        if not run.reference_tokens:
            raise InputError("There are no reference tokens to rank; give a reference image.")
        if self.profile_step >= run.steps:
            raise InputError(
                f"profile_step={self.profile_step} is outside the run: steps are 0 to "
                f"{run.steps - 1}."
            )
        if run.prompts != 1:
            raise InputError(
                f"Recast ranks the tokens for one prompt, but {run.prompts} run in one batch and "
                "share their token positions; run the prompts one by one."
            )
        select_blocks(self.blocks, run.block_kinds)
        check_budget(self.budget, run, self.profile_step + 1)

    def full_reference_steps(self, run: RunContext) -> set[int]:
        return set(self.ranking_steps(run))

    def reading_steps(self, run: RunContext) -> set[int]:
        # attention is recorded by the run itself
        return set() if self.ranking in QUERIES else set(self.ranking_steps(run))

    @contextmanager
    def attached(self, family: Family, run: RunContext) -> Iterator[Attachment | None]:
        if self.ranking != "cosine":
            yield None
            return
        recorder = SimilarityRecorder(run, self.blocks, self.ranking_steps(run))
        with recorder.watching(family.block_modules()):
            yield recorder

    def reference_tokens(self, step: StepContext) -> np.ndarray | None:
        run, profiled = step.run, self.ranking_steps(step.run)
        if step.step <= self.profile_step or step.step in profiled:
            return None
        last = max(each for each in profiled if each < step.step)
        if run.ranking is None or last == step.step - 1:
            run.ranking = self._rank(step, last)
        return run.ranking.top(tokens_kept(self.budget, run.ranking, step))

    def _rank(self, step: StepContext, profiled: int) -> Ranking:
        if self.ranking == "cosine":
            found = cosine(step.run.similarity[profiled][0], str(self.blocks), profiled)
        else:
            rank = cross_image if self.ranking == "cross-image" else self_attention
            found = rank(step.profile(), blocks=self.blocks, steps=profiled)
        return found.reversed() if self.worst_first else found

    def describe(self) -> dict[str, Any]:
        return {
            "name": "Recast",
            "budget": describe_budget(self.budget),
            "blocks": describe_blocks(self.blocks),
            "profile_step": self.profile_step,
            "ranking": self.ranking,
            "every": self.every,
            "worst_first": self.worst_first,
        }
