"""ReCAST in one run: profile one full step, rank, prune in the steps after it (Section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention, Recording, RunContext, StepContext
from recast_probe.interventions.prune import as_budget, check_budget, describe_budget
from recast_probe.selection.rankings import cross_image


@dataclass(frozen=True)
class Recast(Intervention):
    """Rank the reference tokens by the attention they get in one step, then prune.

    Steps up to and including ``profile_step`` run with the full sequence. The profiling is part of
    that step and not an extra pass.

    Attributes:
        budget: how many tokens stay in each later step: a number, ``Fixed`` or ``Adaptive``.
        blocks: blocks whose scores are averaged (Eq. 3); "paper" is the paper's own choice.
        profile_step: the step that is profiled.
    """

    budget: Any
    blocks: Any = "paper"
    profile_step: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "budget", as_budget(self.budget))

    def recording(self) -> Recording:
        return Recording(blocks=self.blocks, steps=(self.profile_step,))

    def prepare(self, run: RunContext) -> None:
        if not 0 <= self.profile_step < run.steps:
            raise InputError(
                f"profile_step={self.profile_step} is outside the run: steps are 0 to "
                f"{run.steps - 1}."
            )
        if run.prompts != 1:
            raise InputError(
                f"Recast ranks the tokens for one prompt, but {run.prompts} run in one batch and "
                "share their token positions; run the prompts one by one."
            )
        check_budget(self.budget, run, self.profile_step + 1)

    def reference_tokens(self, step: StepContext) -> np.ndarray | None:
        if step.step <= self.profile_step:
            return None
        run = step.run
        if run.ranking is None:
            run.ranking = cross_image(step.profile(), blocks=self.blocks, steps=self.profile_step)
        return run.ranking.top(self.budget.tokens_at(step.step, run.steps, run.sigmas))

    def describe(self) -> dict[str, Any]:
        blocks = self.blocks if isinstance(self.blocks, str | int) else list(self.blocks)
        return {
            "name": "Recast",
            "budget": describe_budget(self.budget),
            "blocks": blocks,
            "profile_step": self.profile_step,
        }
