"""Keep the reference tokens that the user names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from recast_probe._utils.checks import whole_number
from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention, RunContext, StepContext


@dataclass(frozen=True)
class Keep(Intervention):
    """Drop all reference tokens but these; they keep their rotary positions.

    Attributes:
        tokens: indices of reference tokens, in any order; none at all drops the whole reference.
        start: first step in which the others are dropped.

    Raises InputError when something is no index.
    """

    tokens: tuple[int, ...]
    start: int = 0

    def __post_init__(self) -> None:
        given = np.asarray(self.tokens)
        if given.ndim != 1 or (given.size and (given.dtype.kind not in "iu" or given.min() < 0)):
            raise InputError(f"Tokens to keep are indices from 0 on, not {self.tokens!r}.")
        object.__setattr__(self, "tokens", tuple(np.unique(given).astype(int).tolist()))

    def prepare(self, run: RunContext) -> None:
        if self.tokens and self.tokens[-1] >= run.reference_tokens:
            raise InputError(
                f"Token {self.tokens[-1]} cannot be kept: this run has reference tokens 0 to "
                f"{run.reference_tokens - 1}."
            )
        if whole_number("start", self.start, 0) > run.steps:
            raise InputError(
                f"start={self.start} is outside the run: steps are 0 to {run.steps - 1}."
            )

    def reference_tokens(self, step: StepContext) -> np.ndarray | None:
        return None if step.step < self.start else np.array(self.tokens, np.int64)

    def describe(self) -> dict[str, Any]:
        tokens = np.array(self.tokens, dtype="<i8")
        return {
            "name": "Keep",
            "tokens": len(tokens),
            "sha256": hashlib.sha256(tokens.tobytes()).hexdigest(),
            "start": self.start,
        }
