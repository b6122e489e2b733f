"""Table 2: what each part of ReCAST is worth, at equal token-steps."""

from __future__ import annotations

from analyses.command import parse
from analyses.comparing import bench, one_table
from recast_probe import budget
from recast_probe._utils.ending import run_program
from recast_probe.commands.common import open_probe
from recast_probe.studies.comparison import Arm


def main(arguments: list[str] | None = None) -> dict:
    """Run what is missing, print the table, write everything to --out."""
    chosen = parse(__doc__, "table_2", arguments, metrics=True)
    probe = open_probe(chosen.model, chosen.dtype, chosen.device)
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
    return one_table(chosen, probe, arms, "recast")


if __name__ == "__main__":
    run_program(main, "table_2")
