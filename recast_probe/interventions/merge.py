"""Merge similar reference tokens instead of dropping them (ToMe, as a baseline for pruning)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from recast_probe.attention.inputs import AttentionInputs
from recast_probe.errors import InputError
from recast_probe.interventions.base import Attachment, Intervention, RunContext, StepContext
from recast_probe.interventions.prune import as_budget, check_budget, describe_budget
from recast_probe.selection.merging import destinations, match, window_for

if TYPE_CHECKING:
    from recast_probe.pipelines.base import Family


@dataclass(frozen=True)
class Merge(Intervention):
    """Replace similar reference tokens by their mean, down to a budget.

    Tokens are compared by the cosine of their latents where they enter the transformer; those are
    the same in every step. A merged token has the rotary position of its destination token. With
    proportional attention the logarithm of a group's size is added to its attention logits, so
    that a group weighs as much as its tokens did.

    Attributes:
        budget: how many tokens are left in each step: a number, ``Fixed`` or ``Adaptive``.
        start: first step in which tokens are merged.
        proportional: weigh groups by their size.
        window: side of the square windows with one destination each; None for the smallest that
            meets the smallest budget.
    """

    budget: Any
    start: int = 0
    proportional: bool = True
    window: int | None = None
    needs_full_reference: ClassVar[bool] = True
    needs_reference_rows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "budget", as_budget(self.budget))

    def prepare(self, run: RunContext) -> None:
        check_budget(self.budget, run, self.start)
        if self.start == run.steps:
            return
        window = self._window(run)
        if window < 2:
            raise InputError(f"Windows have a side of at least 2 tokens, not {window}.")
        least = min(self._tokens(run, step) for step in range(self.start, run.steps))
        allowed = sum(len(destinations(grid, window)) for grid in run.layout.references)
        if least < allowed:
            raise InputError(
                f"Windows of {window} x {window} tokens leave at least {allowed} reference tokens, "
                f"but the budget falls to {least}; choose larger windows, or window=None."
            )

    def edit_inputs(
        self, step: StepContext, inputs: Mapping[str, Any], family: Family
    ) -> Mapping[str, Any] | None:
        run = step.run
        run.group_sizes = None
        if step.step < self.start:
            return None
        budget = self._tokens(run, step.step)
        if budget == run.reference_tokens:
            return None
        features = family.reference_features(inputs, run.layout)
        matching = match(features[0], run.layout.references, self._window(run))
        groups = matching.groups(budget)
        run.group_sizes = groups.sizes
        return family.merge_reference_tokens(
            inputs, run.layout, groups, proportional=self.proportional
        )

    @contextmanager
    def attached(self, family: Family, run: RunContext) -> Iterator[Weighing | None]:
        yield Weighing(run) if self.proportional and not family.takes_attention_mask else None

    def unrecordable_steps(self, run: RunContext) -> set[int]:
        steps = range(self.start, run.steps)
        return {step for step in steps if self._tokens(run, step) < run.reference_tokens}

    def _tokens(self, run: RunContext, step: int) -> int:
        return self.budget.tokens_at(step, run.steps, run.sigmas)

    def _window(self, run: RunContext) -> int:
        if self.window is not None:
            return self.window
        least = min(self._tokens(run, step) for step in range(self.start, run.steps))
        return window_for(least, run.layout.references)

    def describe(self) -> dict[str, Any]:
        return {
            "name": "Merge",
            "budget": describe_budget(self.budget),
            "start": self.start,
            "proportional": self.proportional,
            "window": self.window,
        }


class Weighing(Attachment):
    """Adds the logarithm of a group's size to its logits, where the transformer takes no mask."""

    def __init__(self, run: RunContext) -> None:
        self._run = run

    def changes_attention(self, block: int) -> bool:
        return self._run.group_sizes is not None

    def attention_inputs(self, block: int, inputs: AttentionInputs) -> AttentionInputs:
        sizes = self._run.group_sizes
        assert sizes is not None
        weights = torch.zeros(inputs.key.shape[1])
        weights[-len(sizes) :] = sizes.float().log()
        return replace(inputs, weights=weights.to(inputs.key))
