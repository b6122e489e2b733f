"""Keep the reference tokens that the user names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recast_probe._utils.checks import check_indices, check_int
from recast_probe.errors import InputError
from recast_probe.interventions.base import (
    Intervention,
    RunContext,
    StepContext,
    describe_tokens,
)
from recast_probe.interventions.needs import Needs


@dataclass(frozen=True)
class Keep(Intervention):
    """Drop all reference tokens but these; they keep their rotary positions.

    Attributes:
        tokens: indices of reference tokens, in any order; none at all drops the whole reference.
        start: first step in which the others are dropped.

    Raises:
        InputError: something that is not an index; a budget, which says how many tokens stay and
            not which.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe = rp.Probe(tiny.build_tiny_pipeline())
        >>> keep = Keep((0, 5, 6), start=1)
        >>> settings = {"steps": 2, "progress": False}
        >>> result = probe.generate(tiny.tiny_image(), "a cat", interventions=[keep], **settings)
        >>> result.reference_tokens_per_step
        (16, 3)
    """

    tokens: tuple[int, ...]
    start: int = 0

    def __post_init__(self) -> None:
        given: Any = self.tokens
        if isinstance(given, str | bytes | int | float | np.number) or hasattr(given, "tokens_at"):
            raise InputError(
                f"Keep names the tokens that stay, such as Keep((0, 5, 6)), not {given!r}; for the "
                f"best of a ranking say Prune(ranking, {given!r})."
            )
        if isinstance(given, np.ndarray) and given.dtype == bool:
            raise InputError("Keep names tokens by index; of a mask: Keep(np.flatnonzero(mask)).")
        object.__setattr__(self, "tokens", tuple(check_indices("tokens", given, empty=True)))

    def prepare(self, run: RunContext) -> None:
        count = run.reference_tokens
        check_indices("tokens", self.tokens, count, of="reference tokens", empty=True)
        if check_int("start", self.start, 0) > run.steps:
            raise InputError(
                f"start={self.start} is outside the run: steps are 0 to {run.steps - 1}."
            )

    def reference_tokens(self, step: StepContext) -> np.ndarray | None:
        return None if step.step < self.start else np.array(self.tokens, np.int64)

    def needs(self, run: RunContext) -> Needs:
        dropping = len(self.tokens) < run.reference_tokens
        return Needs(drops=range(self.start, run.steps) if dropping else ())

    def describe(self) -> dict[str, Any]:
        count, digest = describe_tokens(self.tokens)
        return {"name": "Keep", "tokens": count, "sha256": digest, "start": self.start}
