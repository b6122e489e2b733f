"""Your own arms against the full run and the run without a reference.

Every arm that `--arm` names runs on the same references, prompts, seeds and noise. `full` and
`none`, the two ends of the scale, are always there.
"""

from __future__ import annotations

from typing import Any

from recast_probe.errors import InputError
from recast_probe.probe import Probe
from recast_probe.recipes.comparing import chosen_arms, one_table
from recast_probe.recipes.recipe import Recipe
from recast_probe.studies.arms.language import parse_arm
from recast_probe.studies.comparison import Arm

FULL, NONE = "full", "none"
OPTIONS = {"--baseline": {"default": FULL, "help": "the arm that the others are held against"}}


def prepare(chosen: Any) -> None:
    """Check the arms and the baseline.

    Raises:
        InputError: no arms, one that the study has itself, or another baseline than its arms.
    """
    own = chosen_arms(chosen)
    if not own:
        raise InputError(
            "There is nothing to compare: give --arm, such as --arm recast:budget=25%."
        )
    if twice := next((name for name in (FULL, NONE) if name in own), None):
        raise InputError(f"The study has the arm {twice!r} itself; leave --arm {twice} out.")
    chosen.baseline = str(parse_arm(chosen.baseline))
    names = [FULL, NONE, *own]
    if chosen.baseline not in names:
        raise InputError(
            f"--baseline {chosen.baseline} is no arm of this study; there is {', '.join(names)}."
        )


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Run what is missing, print the table, write everything to --out."""
    own = [name for name in chosen_arms(chosen) if name != chosen.baseline]
    return one_table(
        chosen,
        probe,
        {FULL: Arm("full"), NONE: Arm("none")},
        chosen.baseline,
        "Arms compared",
        "All share references, prompts, seeds and noise; each is named by what it does.",
        {name: name for name in own},
    )


RECIPE = Recipe(run, options=OPTIONS, prepare=prepare, metrics=True, arms=True)
