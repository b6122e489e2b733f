"""What a gate's verdict depends on, so that its folder is never gone on with in another way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recast_probe._utils.provenance import versions
from recast_probe.files.envelope import digest, plain
from recast_probe.studies.comparison import FULL
from recast_probe.studies.engine import Unit
from recast_probe.studies.gate.equal_cost import NONE
from recast_probe.studies.gate.plans import METHOD, GatePlans


def gate_settings(
    plans: GatePlans, units: Sequence[Unit], controls: Sequence[str], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Settings of a gate's store.

    A verdict depends on more than the runs' own settings: on which cases there are in what order,
    on the run without the reference, which says what a failure loses, and on the work of a method
    whose plan was given, since controls are sized by it. Other controls only stand beside it.

    Args:
        units: of all cases, in the order in which they are run.
        controls: those that are run.
        given: the gate's other settings, ready for JSON.

    Raises:
        InputError: the method computes as much as the full run, or its work is not known.
    """
    first = units[0].payload
    flop: dict[str, Any] = {name: plans.flop(plans.planned(first, name)) for name in (FULL, METHOD)}
    if plans.plan is not None:
        every = [plans.flop(plans.planned(unit.payload, METHOD)) for unit in units]
        flop["method in all cases"] = digest(every)[:16]
    return {
        "model": plans.probe.name,
        **plans.probe.identity(),
        "versions": versions(),
        "steps": plans.steps,
        "no_reference": NONE in controls,
        "flop_of_first_case": flop,
        "cases": digest(plain([[dict(unit.labels), unit.content] for unit in units]))[:16],
        **given,
    }
