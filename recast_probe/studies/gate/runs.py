"""The runs of a gate: the full run, the method, and controls of at most its work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from recast_probe.datasets import Case
from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention
from recast_probe.interventions.methods import METHODS, WITHOUT_BUDGET
from recast_probe.probe import Probe
from recast_probe.runs.result import RunResult
from recast_probe.studies.comparison import Comparison
from recast_probe.studies.engine import Outcome, Unit
from recast_probe.studies.gate.plans import FEWER_STEPS, GatePlans
from recast_probe.studies.named_method import named_method
from recast_probe.studies.store import Store


class GateRuns(Comparison):
    """Runs what is planned of each case.

    Args:
        plans: of its arms.
        others: as of `Comparison`.
    """

    def __init__(self, plans: GatePlans, store: Store, **others: Any) -> None:
        # a gate's folder is bound to all that decides its runs
        super().__init__(plans.probe, {}, store, steps=plans.steps, kept=False, **others)
        self.plans = plans

    def __call__(self, unit: Unit, arms: Sequence[str]) -> Iterator[Outcome]:
        for outcome in super().__call__(unit, arms):
            arm = self.plans.planned(unit.payload, outcome.arm)
            more = {"flop": self.plans.flop(arm), "size": arm.words}
            yield replace(outcome, values={**outcome.values, **more})

    def run(self, case: Case, name: str) -> RunResult:
        """One arm of one case."""
        arm = self.plans.planned(case, name)
        return self.probe.generate(
            case.reference if arm.reference is None else arm.reference,
            case.prompt,
            steps=arm.steps,
            seed=case.seed,
            interventions=arm.interventions,
            progress=False,
            **arm.arguments,
        )


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
