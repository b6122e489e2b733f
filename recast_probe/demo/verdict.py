"""What the demo says first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recast_probe.demo.words import in_words, least_p, number_words
from recast_probe.report import Verdict

LEVEL = 0.05


def verdict(summary: Mapping[str, Any]) -> Verdict:
    """Does the ranking keep more of the subject than random tokens? An interval that leaves out 0
    and a p-value of at most 0.05 together decide it.

    Args:
        summary: of `summary.json`.
    """
    found = summary["identity_difference"]["recast_minus_random"]
    count, p_value = found["count"], found["p_value"]
    of_arm = {
        arm: f"{name} {summary['arms'][arm]['identity']['mean']:.2f}"
        for arm, name in (("recast", "ReCAST"), ("random", "random"))
    }
    subjects = f"{count} subject{'' if count == 1 else 's'}"
    evidence = (
        "Identity of the subject to the reference, with equally many tokens: "
        f"{', '.join(of_arm.values())}, difference {in_words(found)}, "
        f"p = {number_words(p_value)}."
    )
    certain = found["low"] is not None and p_value is not None and p_value <= LEVEL
    if certain and found["low"] > 0:
        answer = (
            f"With {subjects}: tokens that ReCAST keeps hold more of the subject than random ones"
        )
    elif certain and found["high"] < 0:
        answer = (
            f"With {subjects}: tokens that ReCAST keeps hold less of the subject than random ones"
        )
    else:
        answer = f"Undecided with {subjects}: {of_arm['recast']}, {of_arm['random']}"
        if 2 / 2**count > LEVEL:
            evidence += (
                f" So few subjects cannot decide it: p never falls below {least_p(count)} with "
                f"{count}. More of them can, --references {FEWEST} and up."
            )
    return Verdict(answer, evidence)


FEWEST = next(count for count in range(1, 64) if 2 / 2**count <= LEVEL)
