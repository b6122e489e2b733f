"""A method by its name on the cases of a study, each with its own number of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recast_probe.datasets import Case
from recast_probe.interventions.base import Intervention
from recast_probe.interventions.methods import REUSING, WITHOUT_BUDGET, method
from recast_probe.probe import Probe
from recast_probe.selection.budget_language import budget_of
from recast_probe.selection.budgets import Adaptive

ORACLE = "mask-oracle"


def named_method(
    probe: Probe, name: str, budget: Any = None, **settings: Any
) -> Callable[[Case], list[Intervention]]:
    """A function from a case to the interventions of a method.

    Args:
        name: one of `interventions.METHODS`.
        budget: in any form of `as_budget`. None for Eq. 4, scaled to the reference; for all tokens
            where the method reuses them.
        settings: blocks, refresh and computed, as `interventions.methods.method` takes them.

    Examples:
        >>> (case,) = rp.datasets.load_benchmark("pocket", subjects=1, prompts=1)
        >>> named_method(rp.Probe.tiny("flux-kontext"), "recast", "25%")(case)
        [Recast(budget=Fixed(tokens=4), ...)]
    """

    def interventions(case: Case) -> list[Intervention]:
        layout = probe.layout(case.reference)
        own = None if budget is None else budget_of(budget, layout.reference_tokens)
        if own is None and name not in (*REUSING, *WITHOUT_BUDGET):
            own = Adaptive.paper(layout.reference_tokens)
        # only the oracle's tokens need the mask; finding one can cost as much as a run
        mask = case.reference_mask if name == ORACLE else None
        return method(
            name,
            own,
            layout,
            mask=None if mask is None else probe.reference_mask(mask, case.reference),
            seed=case.seed,
            **settings,
        )

    return interventions
