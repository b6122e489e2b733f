"""Claims about what pruning keeps, which only measurements can judge."""

from __future__ import annotations

from recast_probe.arithmetic.claims.verdict import FAILS, HOLDS, UNTESTED, Measured, Verdict

LITTLE = 0.02  # of identity; a loss above it is not little

ORDER = (
    ("recast_above_self_attention", "ReCAST above Attn-Prune", "0.761 > 0.703 (Table 1)"),
    ("self_attention_above_merge", "Attn-Prune above ToMe", "0.703 > 0.691 (Table 1)"),
    ("merge_above_random", "ToMe above random", "0.691 > 0.618 (Table 1)"),
)


def quality(found: Measured) -> list[Verdict]:
    """Identity kept, the order of the methods, and the extensions of Section 3.4."""
    kept, cached = found.number("retention"), found.number("token_cache_retention")
    return [
        Verdict(
            "ReCAST keeps 97.3 % of the identity score",
            "97.3 % (Table 1)",
            "-",
            found.text("retention", ".1%"),
            *found.judged("retention", (kept or 0) >= 0.95, "A retention of 95 % was asked for."),
        ),
        *(
            Verdict(
                claim,
                paper,
                "-",
                found.difference(name),
                *found.judged_difference(name, "Identity was compared in pairs"),
            )
            for name, claim, paper in ORDER
        ),
        Verdict(
            "ReCAST and ToCa together keep 96 % of the identity score",
            "DINO 0.752 of 0.782 (Section 3.4)",
            "-",
            found.text("token_cache_retention", ".1%"),
            *found.judged(
                "token_cache_retention",
                (cached or 0) >= 0.95,
                "A retention of 95 % was asked for.",
                "analyses.token_cache",
            ),
        ),
        Verdict(
            "A reused ranking costs 0.006",
            "-0.006 DINO (Section 3.4)",
            "-",
            found.difference("reused_above_fresh"),
            *_costs_little(found),
        ),
        Verdict(
            "Style transfer is the worst case",
            "-0.027 DINO (Section 3.4)",
            "-",
            found.difference("style_transfer_above_others"),
            *found.judged_difference(
                "style_transfer_above_others",
                "What pruning adds to the distance to the true target was compared with the other "
                "categories",
                "analyses.table_1 with the category style reference",
            ),
        ),
        _ip_adapter(found),
    ]


def _costs_little(found: Measured) -> tuple[str, str]:
    """Holds if the whole interval lies above a small loss, fails if it lies below."""
    value = found.values.get("reused_above_fresh")
    if value is None:
        return UNTESTED, "Nothing was measured; run analyses.amortisation and give its summary."
    low, high = value["low"], value["high"]
    asked = f"A loss of less than {LITTLE} was asked for, with all of the interval"
    if low is None or high is None or low <= -LITTLE <= high:
        return UNTESTED, f"{asked}; it does not decide."
    verdict = HOLDS if low > -LITTLE else FAILS
    return verdict, f"{asked}. That is {found.model}, not the 12 B model."


def _ip_adapter(found: Measured) -> Verdict:
    top, kept = found.number("ip_adapter_top25"), found.number("ip_adapter_retention")
    claim = "IP-Adapter: the top 25 % of 128 tokens take 72 %, and 64 keep 97.6 %"
    paper = "72 %, 97.6 % at 64 (Section 3.4)"
    if top is None or kept is None:
        reason = (
            "It needs a trained adapter, which does not ship; analyses.ip_adapter runs on one, "
            "and its summary is read here."
        )
        return Verdict(claim, paper, "-", "-", UNTESTED, reason)
    tokens = found.number("ip_adapter_tokens") or 0
    return Verdict(
        claim,
        paper,
        "-",
        f"{top:.1%} on the top 25 % of {tokens:.0f} tokens, {kept:.1%} kept by half of them "
        f"({found.model})",
        HOLDS if top >= 0.7 and kept >= 0.95 else FAILS,
        "70 % and 95 % were asked for, of whole images and not of subjects.",
    )
