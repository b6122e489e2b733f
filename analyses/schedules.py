"""Does Eq. 4's growing budget beat flat, inverted and entropy-matched ones at equal token-steps?"""

from __future__ import annotations

from analyses.command import parse
from analyses.comparing import bench, one_table
from recast_probe import budget
from recast_probe._utils.ending import run_program
from recast_probe.commands.common import open_probe
from recast_probe.studies.comparison import Arm

TRIALS = 8


def main(arguments: list[str] | None = None) -> dict:
    """Run what is missing, print the table, write everything to --out."""
    chosen = parse(__doc__, "schedules", arguments, metrics=True)
    probe = open_probe(chosen.model, chosen.dtype, chosen.device)
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
    shape = sum(
        budget.entropy_matched(profile, total, start=1).schedule(chosen.steps)[1:]
        for profile in profiles
    )
    matched = budget.Listed((tokens, *budget.with_total(shape, total)), "entropy-matched")
    arms = {
        "full": Arm("full"),
        "Eq. 4": Arm("recast", adaptive),
        "flat": Arm("recast", budget.flat(adaptive, chosen.steps, start=1)),
        "inverted": Arm("recast", budget.inverted(adaptive, chosen.steps, start=1)),
        "entropy-matched": Arm("recast", matched),
    }
    return one_table(chosen, probe, arms, "Eq. 4")


if __name__ == "__main__":
    run_program(main, "schedules")
