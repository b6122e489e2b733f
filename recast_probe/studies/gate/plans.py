"""What each arm of a gate computes of a case, before anything is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from recast_probe.cost_model import RunPlan, TransformerConfig, config_of
from recast_probe.datasets import Case
from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention
from recast_probe.probe import Probe
from recast_probe.studies.comparison import FULL
from recast_probe.studies.gate.equal_cost import (
    CONTROLS,
    FEWER,
    RANDOM,
    NoControlError,
    PlannedRun,
    control,
    full_plan,
    planned,
)

METHOD = "method"
FEWER_STEPS = "fewer-steps"  # as a method: the whole model, in fewer steps


class GatePlans:
    """The arms of a gate, each sized for the case by the cost model.

    Args:
        steps: denoising steps of the full run and of the method.
        plan: from the full run's plan to the method's; None where it follows from its settings.
        fewer: the method is the full run in so many steps.
    """

    def __init__(
        self,
        probe: Probe,
        method: Callable[[Case], Sequence[Intervention]],
        *,
        steps: int,
        plan: Callable[[RunPlan], RunPlan] | None = None,
        fewer: int | None = None,
    ) -> None:
        self.probe, self.steps, self.plan = probe, steps, plan
        self.config: TransformerConfig = config_of(probe.family.transformer)
        self._method, self._fewer = method, fewer

    def planned(self, case: Case, name: str) -> PlannedRun:
        """An arm of a case, before it is run.

        Args:
            name: "full", "method" or a control.

        Raises:
            NoControlError: there is no such control.
            InputError: the method computes as much as the full run.
        """
        layout = self.probe.layout(case.reference, case.prompt)
        full = full_plan(self.probe, case, layout, self.steps)
        if name == FULL:
            return PlannedRun(full, f"{full.reference} tokens, {self.steps} steps")
        done = tuple(self._method(case))
        plan = planned(full, done) if self.plan is None else self.plan(full)
        words = f"{self.steps} steps"
        if self._fewer is not None:
            plan = replace(plan, steps=plan.steps[: self._fewer])
            words = f"{self._fewer} of {words}"
        method = PlannedRun(plan, words, done)
        whole, own = (each.work(self.config).total for each in (full, plan))
        if own >= whole:
            raise InputError(
                f"The method computes {own:.4g} FLOP and the full run {whole:.4g}, so there is "
                "nothing to gain that could be weighed against a loss."
            )
        if name == METHOD:
            return method
        return control(name, self.probe, case, self.config, full, method)

    def flop(self, arm: PlannedRun) -> float:
        """What an arm computes, by the cost model."""
        return float(arm.plan.work(self.config).total)


def available_controls(
    plans: GatePlans, case: Case, controls: Sequence[str], method: Any
) -> tuple[list[str], dict[str, str]]:
    """The controls that there are for a case, and why there are not the others."""
    chosen, left_out = [], {}
    plans.planned(case, METHOD)
    for name in (each for each in CONTROLS if each in controls):
        if (name, method) in ((RANDOM, "random"), (FEWER, FEWER_STEPS)):
            left_out[name] = "it is the method itself"
            continue
        try:
            plans.planned(case, name)
            chosen.append(name)
        except NoControlError as error:
            left_out[name] = str(error)
    return chosen, left_out
