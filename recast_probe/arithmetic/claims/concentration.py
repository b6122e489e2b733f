"""Claims about where attention lies, and how much of it."""

from __future__ import annotations

from recast_probe.arithmetic.claims.verdict import IMPOSSIBLE, REFERENCE, Measured, Verdict
from recast_probe.arithmetic.limits import entropy_range, largest_top_share


def concentration(found: Measured) -> list[Verdict]:
    """Skew, entropy, foreground and agreement across prompts."""
    top = REFERENCE // 4
    _, bits = entropy_range(REFERENCE, top, 0.8)
    share = largest_top_share(REFERENCE, top, 11.2)
    top25 = found.number("top25")
    first, last = found.number("entropy_first"), found.number("entropy_last")
    auroc, spearman = found.number("auroc"), found.number("spearman")
    falls = first is not None and last is not None and last < first
    return [
        Verdict(
            "The top 25 % of reference tokens take over 80 % of the attention",
            "> 80 % (Figure 2)",
            f"at most {bits:.2f} bits of entropy then",
            found.text("top25", ".1%"),
            *found.judged("top25", (top25 or 0) > 0.8, "The measured share was held against 80 %."),
        ),
        Verdict(
            "Entropy falls over the denoising steps",
            "11.2 to 8.4 bits (Section 2.4)",
            f"0 to {_log2(REFERENCE):.0f} bits for {REFERENCE} tokens",
            "-" if first is None or last is None else f"{first:.2f} to {last:.2f} ({found.model})",
            *found.judged("entropy_last", falls, "First and last step were compared."),
        ),
        Verdict(
            "80 % on the top quarter and 11.2 bits, where the ranking is taken",
            "both (Sections 2.2, 2.4)",
            f"80 % allows {bits:.2f} bits, 11.2 bits allow {share:.1%}",
            "-",
            IMPOSSIBLE,
            "At one step no distribution has both, whatever the model; they may hold for "
            "different steps or different averages.",
        ),
        Verdict(
            "High scores lie on the foreground",
            "consistently (Figure 2)",
            "chance is an AUROC of 0.5",
            found.text("auroc"),
            *found.judged("auroc", (auroc or 0) > 0.75, "An AUROC above 0.75 was asked for."),
        ),
        Verdict(
            "Rankings agree across prompts",
            "Spearman 0.912 (Section 3.4)",
            "-1 to 1",
            found.text("spearman"),
            *found.judged("spearman", (spearman or 0) >= 0.9, "A mean of 0.9 was asked for."),
        ),
    ]


def _log2(tokens: int) -> float:
    return entropy_range(tokens, tokens // 4, 0.25)[1]
