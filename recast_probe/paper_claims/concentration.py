"""Claims about where attention lies, and how much of it."""

from __future__ import annotations

from recast_probe.cost_model.limits import entropy_range, largest_top_share
from recast_probe.paper_claims.judging import (
    Judged,
    all_of,
    difference,
    either_way,
    level,
    unmeasured,
)
from recast_probe.paper_claims.verdict import (
    ARITHMETIC,
    HOLDS,
    IN_DIRECTION,
    REFERENCE,
    UNDECIDED,
    Measured,
    Verdict,
)

TOP = REFERENCE // 4
PAPER_SHARE, PAPER_BITS, PAPER_LAST_BITS = 0.8, 11.2, 8.4
PAPER_AGREEMENT, AGREEMENT = 0.912, 0.9  # of rankings; asked for is a little less
COMMAND = "concentration"


def concentration(found: Measured) -> list[Verdict]:
    """Skew, entropy, foreground and agreement across prompts.

    Examples:
        >>> [each.verdict for each in concentration(Measured({}))]
        ['not measured', 'not measured', 'not decided', 'not measured', 'not measured']
    """
    _, bits = entropy_range(REFERENCE, TOP, PAPER_SHARE)
    share = largest_top_share(REFERENCE, TOP, PAPER_BITS)
    return [
        Verdict(
            "The top 25 % of reference tokens take over 80 % of the attention",
            "> 80 % (Figure 2)",
            f"at most {bits:.2f} bits of entropy then, of one distribution",
            _readings(found),
            *either_way(
                level(found, "top25", PAPER_SHARE, COMMAND),
                level(found, "top25_of_blocks", PAPER_SHARE, COMMAND),
            ),
            "Figure 2 says per block and Eq. 3 averages the blocks: both readings are asked",
        ),
        Verdict(
            "Entropy falls over the denoising steps",
            f"{PAPER_BITS} to {PAPER_LAST_BITS} bits (Section 2.4)",
            f"0 to {_log2(REFERENCE):.0f} bits for {REFERENCE} tokens",
            _fall(found),
            *_entropy_falls(found),
            "the marginal entropy, of the first and the last step of the same run",
        ),
        Verdict(
            "80 % on the top quarter and 11.2 bits, where the ranking is taken",
            "both (Sections 2.2, 2.4)",
            f"of one distribution 80 % allows {bits:.2f} bits, and {PAPER_BITS} bits allow "
            f"{share:.1%}",
            "-",
            UNDECIDED,
            ARITHMETIC,
            "impossible if both are of the mean score; not if 80 % is per block, as Figure 2 says: "
            "blocks that prefer different quarters have a mean of more bits",
        ),
        Verdict(
            "High scores lie on the foreground",
            "consistently (Figure 2)",
            "an AUROC of 0.5 only for a map that knows neither subject nor middle",
            _foreground(found),
            *_on_the_foreground(found),
            "subjects lie near the middle, so 0.5 is not chance: the AUROC must exceed, pair by "
            "pair, that of a map that only prefers the middle, and that of masks of other subjects",
        ),
        Verdict(
            "Rankings agree across prompts",
            f"Spearman {PAPER_AGREEMENT} (Section 3.4)",
            "-1 to 1",
            found.text("spearman"),
            *level(found, "spearman", AGREEMENT, "stability", ".1f"),
            _mix(found),
        ),
    ]


def _readings(found: Measured) -> str:
    parts = [
        f"{found.text(name, '.1%')} ({words})"
        for name, words in (
            ("top25", "of the mean score"),
            ("top25_of_blocks", "of each block, mean over blocks"),
        )
        if found.get(name) is not None
    ]
    return "; ".join(parts) or "-"


def _fall(found: Measured) -> str:
    first, last, fall = (found.get(f"entropy_{name}") for name in ("first", "last", "fall"))
    parts = []
    if first is not None and last is not None:
        parts.append(f"{first.mean:.2f} to {last.mean:.2f}")
    if fall is not None:
        parts.append(f"falls by {fall.text()}")
    maximum = found.get("entropy_maximum")
    if parts and maximum is not None:
        parts.append(f"of at most {maximum.mean:.0f}")
    return "; ".join(parts) or "-"


def _entropy_falls(found: Measured) -> Judged:
    """Judge the paired difference, and whether it is as large a share of the maximum as stated."""
    if found.get("entropy_fall") is None and found.get("entropy_last") is not None:
        return UNDECIDED, f"the pairs were not compared; recast-probe study {COMMAND} does it"
    verdict, test = difference(found, "entropy_fall", COMMAND)
    if verdict != HOLDS:
        return verdict, test
    fall, maximum = found.found["entropy_fall"], found.get("entropy_maximum")
    wanted = (PAPER_BITS - PAPER_LAST_BITS) / _log2(REFERENCE)
    if maximum is not None and fall.high is not None and fall.high >= wanted * maximum.mean:
        return HOLDS, test
    known = "" if maximum is None else f", where {fall.mean / maximum.mean:.0%} were measured"
    return IN_DIRECTION, f"{test}; the paper's fall is {wanted:.0%} of what there can be{known}"


def _foreground(found: Measured) -> str:
    parts = [found.text("auroc")]
    for name, words in (
        ("auroc_center", "a map of the middle"),
        ("auroc_other_masks", "masks of other subjects"),
    ):
        value = found.get(name)
        if value is not None:
            parts.append(f"{words} {value.mean:.3f}")
    return "; ".join(parts)


def _on_the_foreground(found: Measured) -> Judged:
    nulls = ("auroc_above_center", "auroc_above_other_masks")
    if found.get("auroc") is None:
        return unmeasured(COMMAND)
    missing = [name for name in nulls if found.get(name) is None]
    if missing:
        return UNDECIDED, f"its nulls were not compared; recast-probe study {COMMAND} does it"
    return all_of(*(difference(found, name, COMMAND) for name in nulls))


def _mix(found: Measured) -> str:
    same, other = found.get("spearman_same_category"), found.get("spearman_other_category")
    words = "this mix of prompts; the paper does not tell its own"
    if same is None or other is None:
        return f"{words}, and within one kind of edit agreement is another question"
    return (
        f"{words}. Within one kind of edit it is {same.mean:.3f}, between two kinds "
        f"{other.mean:.3f}"
    )


def _log2(tokens: int) -> float:
    return entropy_range(tokens, tokens // 4, 0.25)[1]
