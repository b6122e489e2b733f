"""Table 2: what each part of ReCAST is worth, at equal token-steps."""

from __future__ import annotations

from typing import Any

from recast_probe import budget
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import bench
from recast_probe.recipes.comparing import one_table
from recast_probe.recipes.recipe import Recipe
from recast_probe.studies.comparison import Arm


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Run what is missing, print the table, write everything to --out."""
    tokens = probe.layout(bench(chosen)[0].reference).reference_tokens
    adaptive = budget.Adaptive.paper(tokens)
    arms = {
        "full": Arm("full"),
        "recast": Arm("recast", adaptive),
        "flat budget": Arm("recast", budget.flat(adaptive, chosen.steps, start=1)),
        **{
            f"block {block} alone": Arm("recast", adaptive, blocks=block)
            for block in range(len(probe.block_kinds))
        },
        "all blocks": Arm("recast", adaptive, blocks="all"),
        "self-attention": Arm("self-attention", adaptive),
        "cosine": Arm("cosine", adaptive),
        "random": Arm("random", adaptive),
        "random per step": Arm("random-per-step", adaptive),
    }
    alone = [name for name in arms if name.endswith(" alone")]
    return one_table(
        chosen,
        probe,
        arms,
        "recast",
        "What each part is worth",
        "ReCAST with one part replaced: its budget, its blocks (each alone, and all), its ranking.",
        {
            "flat budget": "A flat budget",
            **{name: name.capitalize() for name in alone},
            "all blocks": "The mean of all blocks",
            "self-attention": "Self-attention",
            "cosine": "Cosine similarity",
            "random": "Random tokens",
            "random per step": "Lots drawn anew in every step",
        },
    )


RECIPE = Recipe(run, metrics=True, arms=True)
