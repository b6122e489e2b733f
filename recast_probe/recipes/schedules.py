"""Does Eq. 4's growing budget beat flat, inverted and entropy-matched ones at equal token-steps?"""

from __future__ import annotations

from typing import Any

import numpy as np

from recast_probe import budget
from recast_probe.blocks import single_or_all
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import bench
from recast_probe.recipes.comparing import one_table
from recast_probe.recipes.recipe import Recipe
from recast_probe.studies.comparison import Arm

TRIALS = 8


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Run what is missing, print the table, write everything to --out."""
    cases = bench(chosen)
    tokens = probe.layout(cases[0].reference).reference_tokens
    adaptive = budget.Adaptive.paper(tokens)
    total = int(adaptive.schedule(chosen.steps)[1:].sum())
    # the entropy is that of the first subjects, the same schedule for all
    profiles = [
        probe.profile(
            case.reference,
            case.prompt,
            chosen.steps,
            case.seed,
            mass_table="queried",
            progress=False,
        )
        for case in cases[:TRIALS]
    ]
    blocks = single_or_all(probe.block_kinds)
    shapes = [
        budget.entropy_matched(profile, total, blocks=blocks, start=1).schedule(chosen.steps)[1:]
        for profile in profiles
    ]
    shape = np.sum(shapes, axis=0)
    matched = budget.Listed((tokens, *budget.with_total(shape, total)), "entropy-matched")
    arms = {
        "full": Arm("full"),
        "Eq. 4": Arm("recast", adaptive),
        "flat": Arm("recast", budget.flat(adaptive, chosen.steps, start=1)),
        "inverted": Arm("recast", budget.inverted(adaptive, chosen.steps, start=1)),
        "entropy-matched": Arm("recast", matched),
    }
    return one_table(
        chosen,
        probe,
        arms,
        "Eq. 4",
        "Does the growing schedule help?",
        "All pruned arms have the same token-steps. Eq. 4 grows over the steps, flat is even, "
        "inverted falls; entropy-matched follows the mean entropy of "
        f"{len(profiles)} full runs.",
        {name: f"The {name} budget" for name in ("flat", "inverted", "entropy-matched")},
        {"adaptive_above_flat": ("Eq. 4", "flat")},
    )


RECIPE = Recipe(run, metrics=True, arms=True)
