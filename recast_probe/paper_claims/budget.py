"""Claims about how many tokens stay, and in which blocks they are ranked."""

from __future__ import annotations

from recast_probe.cost_model.limits import eq_4_mean, gamma_for_mean
from recast_probe.paper_claims.judging import difference
from recast_probe.paper_claims.verdict import (
    ARITHMETIC,
    FAILS,
    REFERENCE,
    STEPS,
    Measured,
    Verdict,
)
from recast_probe.selection.budgets import Adaptive

PAPER_BUDGET = Adaptive(256, 1024, gamma=2.0)


def budget(found: Measured) -> list[Verdict]:
    """The mean of Eq. 4, its direction, and its blocks.

    Examples:
        >>> [each.verdict for each in budget(Measured({}))]
        ['fails', 'not measured', 'fails']
    """
    mean = eq_4_mean(PAPER_BUDGET.minimum, PAPER_BUDGET.maximum, PAPER_BUDGET.gamma, STEPS)
    with_profile = (REFERENCE + PAPER_BUDGET.schedule(STEPS)[1:].sum()) / STEPS
    gamma = gamma_for_mean(PAPER_BUDGET.minimum, PAPER_BUDGET.maximum, 600, STEPS)
    return [
        Verdict(
            "Eq. 4 keeps about 600 tokens a step",
            "~ 600 (Section 2.4)",
            f"{mean:.1f} by Eq. 4; {with_profile:.0f} with the full step 0; 600 needs gamma "
            f"{gamma:.2f}",
            "-",
            FAILS,
            ARITHMETIC,
            "the stated minimum, maximum and gamma, with t / T even over the steps; on the clock "
            "of the noise level the mean is lower still",
        ),
        Verdict(
            "Late steps need a more focused set, so the budget grows",
            "Eq. 4 rises while entropy falls (Section 2.4)",
            f"{PAPER_BUDGET.minimum} to {PAPER_BUDGET.maximum} tokens as entropy falls",
            found.text("adaptive_above_flat", "+.3f"),
            *difference(found, "adaptive_above_flat", "table_1"),
            "equal token-steps: the growing budget against the same total spread evenly",
        ),
        Verdict(
            "Blocks 20 to 56 are the single-stream blocks",
            "20..56 (Section 2.3)",
            "single-stream blocks are 19 to 56",
            "-",
            FAILS,
            ARITHMETIC,
            "counted from 0, where the first of 38 is missing; counted from 1 they are 20 to 57, "
            "and the last is missing",
        ),
    ]
