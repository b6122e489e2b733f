"""The arms of a gate as runs: the full run, the method, and controls of at most its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from recast_probe.cost_model import RunPlan, TransformerConfig, config_of
from recast_probe.datasets import Case
from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention
from recast_probe.interventions.methods import METHODS, WITHOUT_BUDGET
from recast_probe.probe import Probe
from recast_probe.runs.result import RunResult
from recast_probe.studies.comparison import FULL, Comparison
from recast_probe.studies.engine import Outcome, Unit
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
from recast_probe.studies.named_method import named_method
from recast_probe.studies.store import Store

METHOD = "method"
FEWER_STEPS = "fewer-steps"  # as a method: the whole model, in fewer steps


class GateRuns(Comparison):
    """The arms of a gate, each sized for the case by the cost model.

    Args:
        steps: denoising steps of the full run and of the method.
        plan: from the full run's plan to the method's; None where it follows from its settings.
        fewer: the method is the full run in so many steps.
        others: as of `Comparison`.
    """

    def __init__(
        self,
        probe: Probe,
        method: Callable[[Case], Sequence[Intervention]],
        store: Store,
        *,
        steps: int,
        plan: Callable[[RunPlan], RunPlan] | None = None,
        fewer: int | None = None,
        **others: Any,
    ) -> None:
        super().__init__(probe, {}, store, steps=steps, **others)
        self.config: TransformerConfig = config_of(probe.family.transformer)
        self._method, self._plan, self._fewer = method, plan, fewer

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
        plan = planned(full, done) if self._plan is None else self._plan(full)
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

    def __call__(self, unit: Unit, arms: Sequence[str]) -> Iterator[Outcome]:
        for outcome in super().__call__(unit, arms):
            arm = self.planned(unit.payload, outcome.arm)
            more = {"flop": arm.plan.work(self.config).total, "size": arm.words}
            yield replace(outcome, values={**outcome.values, **more})

    def run(self, case: Case, name: str) -> RunResult:
        """One arm of one case."""
        arm = self.planned(case, name)
        return self.probe.generate(
            case.reference if arm.reference is None else arm.reference,
            case.prompt,
            steps=arm.steps,
            seed=case.seed,
            interventions=arm.interventions,
            progress=False,
            **arm.arguments,
        )


def available_controls(
    runs: GateRuns, case: Case, controls: Sequence[str], method: Any
) -> tuple[list[str], dict[str, str]]:
    """The controls that there are for a case, and why there are not the others."""
    chosen, left_out = [], {}
    runs.planned(case, METHOD)
    for name in (each for each in CONTROLS if each in controls):
        if (name, method) in ((RANDOM, "random"), (FEWER, FEWER_STEPS)):
            left_out[name] = "it is the method itself"
            continue
        try:
            runs.planned(case, name)
            chosen.append(name)
        except NoControlError as error:
            left_out[name] = str(error)
    return chosen, left_out


def method_label(method: str | Sequence[Intervention]) -> str:
    if not isinstance(method, str):
        if not method:
            raise InputError("No interventions are no saving; give the method some.")
        return " + ".join(type(each).__name__ for each in method)
    savings = [*(name for name in METHODS if name not in ("full", "none")), FEWER_STEPS]
    if method not in savings:
        raise InputError(f"{method!r} is no saving; there is {', '.join(savings)}.")
    return method


def interventions_of(
    probe: Probe, method: Any, budget: Any, blocks: Any, refresh: Any, computed: Any
) -> Callable[[Case], Sequence[Intervention]]:
    if method == FEWER_STEPS:
        if budget is not None or refresh is not None:
            raise InputError(
                f"The method {FEWER_STEPS!r} takes computed, and neither budget nor refresh."
            )
        return lambda case: ()
    if not isinstance(method, str):
        if any(each is not None for each in (budget, refresh, computed)):
            raise InputError("budget, refresh and computed belong to a method that has a name.")
        return lambda case: method
    if budget is not None and method in WITHOUT_BUDGET:
        raise InputError(f"The method {method!r} takes no budget; it keeps all tokens.")
    return named_method(probe, method, budget, blocks=blocks, refresh=refresh, computed=computed)


def fewer_steps(method: Any, computed: Any, steps: int) -> int | None:
    """How many steps are left, where that is the method; None where it is another.

    Args:
        computed: a number of steps.

    Raises:
        InputError: `computed` is missing, is no such number, or leaves every step.
    """
    if method != FEWER_STEPS:
        return None
    if not isinstance(computed, int) or isinstance(computed, bool) or not 0 < computed < steps:
        raise InputError(
            f"The method {FEWER_STEPS!r} needs computed, from 1 to {steps - 1} of the {steps} "
            f"steps, not {computed!r}."
        )
    return computed
