"""Merge similar reference tokens instead of dropping them (ToMe, as a baseline for pruning)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from recast_probe.attention.inputs import AttentionInputs
from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention, RunContext, RunHook, StepContext
from recast_probe.interventions.needs import Needs
from recast_probe.interventions.prune import budget_facts, check_budget, ranked_budget, tokens_at
from recast_probe.selection.merging import destinations, match, window_for

if TYPE_CHECKING:
    from recast_probe.pipelines.base import Family


@dataclass(frozen=True)
class Merge(Intervention):
    """Replace similar reference tokens by their mean, down to a budget.

    Tokens are compared by the cosine of their latents where they enter the transformer; those are
    the same in every step. A merged token has the rotary position of its destination token. With
    proportional attention the logarithm of a group's size is added to its attention logits, so
    that a group weighs as much as its tokens did. The method is that of ToMe (Bolya et al., arXiv
    2210.09461; arXiv 2303.17604 for diffusion).

    Attributes:
        budget: how many tokens are left in each step: 64, 0.25, "25%", "eq4:16:64", or another
            budget of ``recast_probe.budget``.
        start: first step in which tokens are merged.
        proportional: weigh groups by their size.
        window: side of the square windows with one destination each; None for the smallest that
            meets the smallest budget.

    Raises:
        InputError: not a budget. When the run is prepared: a budget that does not fit its reference
            tokens, or windows that leave more tokens than the budget.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe = rp.Probe(tiny.build_tiny_pipeline())
        >>> settings = {"steps": 2, "progress": False}
        >>> merge = Merge(6, start=1)
        >>> result = probe.generate(tiny.tiny_image(), "a cat", interventions=[merge], **settings)
        >>> result.reference_tokens_per_step
        (16, 6)
    """

    budget: Any
    start: int = 0
    proportional: bool = True
    window: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "budget", ranked_budget(self.budget))

    def prepare(self, run: RunContext) -> None:
        check_budget(self.budget, run, self.start)
        if self.start == run.steps:
            return
        window = self.window_of(run)
        if window < 2:
            raise InputError(f"Windows have a side of at least 2 tokens, not {window}.")
        least = min(self.tokens_left(step, run) for step in range(self.start, run.steps))
        allowed = sum(len(destinations(grid, window)) for grid in run.layout.references)
        if least < allowed:
            raise InputError(
                f"Windows of {window} x {window} tokens leave at least {allowed} reference tokens, "
                f"but the budget falls to {least}; choose larger windows, or window=None."
            )

    def needs(self, run: RunContext) -> Needs:
        every = range(run.steps)
        merges = [step for step in every if self.tokens_left(step, run) < run.reference_tokens]
        return Needs(reference_rows=every, full_reference=every, merges=merges)

    def hook(self, run: RunContext) -> RunHook:
        return MergeBiasHook(self, run)

    def tokens_left(self, step: int, run: RunContext) -> int:
        """How many reference tokens a step has."""
        if step < self.start:
            return run.reference_tokens
        return tokens_at(self.budget, step, run)

    def window_of(self, run: RunContext) -> int:
        """Side of the windows in a run."""
        if self.window is not None:
            return self.window
        least = min(self.tokens_left(step, run) for step in range(self.start, run.steps))
        return window_for(least, run.layout.references)


class MergeBiasHook(RunHook):
    """Merges the tokens of one run, and weighs them where the transformer takes no mask."""

    def __init__(self, settings: Merge, run: RunContext) -> None:
        self._settings, self._run = settings, run
        # int64, how many tokens each reference token of the present call stands for, if that
        # weighs them inside attention
        self._sizes: Tensor | None = None

    def edit_inputs(
        self, step: StepContext, inputs: Mapping[str, Any], family: Family
    ) -> Mapping[str, Any] | None:
        settings, run, self._sizes = self._settings, step.run, None
        budget = settings.tokens_left(step.step, run)
        if budget == run.reference_tokens:
            return None
        features = family.reference_features(inputs, run.layout)
        matching = match(features[0], run.layout.references, settings.window_of(run))
        groups = matching.groups(budget)
        if settings.proportional and not family.takes_attention_mask:
            self._sizes = groups.sizes
        return family.merge_reference_tokens(
            inputs, run.layout, groups, proportional=settings.proportional
        )

    def changes_attention(self, block: int) -> bool:
        return self._sizes is not None

    def attention_logits(self, block: int, inputs: AttentionInputs) -> AttentionInputs:
        assert self._sizes is not None
        bias = torch.zeros(inputs.key.shape[1])
        bias[-len(self._sizes) :] = self._sizes.float().log()
        return replace(inputs, logit_bias=bias.to(inputs.key))

    def facts(self) -> dict[str, Any]:
        return budget_facts(self._settings.budget, self._run)
