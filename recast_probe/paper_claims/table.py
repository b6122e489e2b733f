"""The verdicts as a Markdown table: the one of docs/findings.md."""

from __future__ import annotations

from collections.abc import Sequence

from recast_probe.paper_claims.verdict import Verdict


def markdown_table(verdicts: Sequence[Verdict], model: str | None) -> str:
    """One row a claim, its columns as narrow as they are.

    Args:
        model: whose measurements they are; None where nothing was measured.

    Examples:
        >>> from recast_probe.paper_claims.budget import budget
        >>> from recast_probe.paper_claims.verdict import Measured
        >>> print(markdown_table(budget(Measured({}))[:1], None).split("\\n")[0])
        | claim | paper | what arithmetic allows | measured | verdict | test | rests on |
    """
    measured = "measured" if model is None else f"measured on {model}"
    rows = [
        ["claim", "paper", "what arithmetic allows", measured, "verdict", "test", "rests on"],
        ["---"] * 7,
        *(
            [v.claim, v.paper, v.allowed, v.measured, v.verdict, v.test, v.rests_on]
            for v in verdicts
        ),
    ]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
