"""Claims about what pruning keeps, which only measurements can judge."""

from __future__ import annotations

from dataclasses import replace

from recast_probe.paper_claims.judging import (
    Judged,
    all_of,
    difference,
    level,
    small_loss,
)
from recast_probe.paper_claims.verdict import UNDECIDED, UNTESTABLE, Measured, Verdict

LITTLE = 0.02  # of identity; a loss above it is not little
KEPT = 0.95  # of identity; the paper's 97.3 and 97.6 % are above it
BLOCK_SHARE = 0.7  # asked for of an adapter's top quarter; the paper's is 72 %

TABLE_1 = "table_1"
MERGED = "merging once at the input; ToMe merges in every block"
ORDER = (
    (
        "recast_above_self_attention",
        "ReCAST above Attn-Prune",
        "0.761 > 0.703 (Table 1)",
        "attention among reference tokens, after FastV, in the place of Attn-Prune",
    ),
    (
        "self_attention_above_merge",
        "Attn-Prune above ToMe",
        "0.703 > 0.691 (Table 1)",
        MERGED,
    ),
    (
        "merge_above_random",
        "ToMe above random",
        "0.691 > 0.618 (Table 1)",
        MERGED,
    ),
)


def quality(found: Measured) -> list[Verdict]:
    """Identity kept, the order of the methods, and the extensions of Section 3.4.

    Examples:
        >>> quality(Measured({"retention": 0.98}))[0].measured
        '98.0%'
    """
    identity = "MobileNetV2 identity in the place of DINOv2"
    return [
        Verdict(
            "ReCAST keeps 97.3 % of the identity score",
            "97.3 % (Table 1)",
            "-",
            _kept(found),
            *level(found, "retention", KEPT, TABLE_1),
            f"{identity}; a run without the reference keeps a part of the score, so the share of "
            "what the reference adds stands beside it",
        ),
        *(
            Verdict(
                claim,
                paper,
                "-",
                found.text(name, "+.3f"),
                *difference(found, name, TABLE_1),
                f"equal token-steps; {stands_in}",
            )
            for name, claim, paper, stands_in in ORDER
        ),
        Verdict(
            "Adding ToCa to ReCAST costs 0.009",
            "DINO 0.752 after 0.761 (Section 3.4)",
            "-",
            _with_toca(found),
            *_toca_costs_little(found),
            "against ReCAST alone in the same runs, not against the full run",
        ),
        Verdict(
            "A reused ranking costs 0.006",
            "-0.006 DINO (Section 3.4)",
            "-",
            found.text("reused_above_fresh", "+.3f"),
            *small_loss(found, "reused_above_fresh", LITTLE, "amortisation"),
            "a ranking made for a background change, used for the reference's other prompts"
            + _of_one_kind(found),
        ),
        Verdict(
            "Style transfer is the worst case",
            "-0.027 DINO (Section 3.4)",
            "-",
            found.text("style_transfer_above_others", "+.3f"),
            *difference(
                found,
                "style_transfer_above_others",
                f'{TABLE_1} --prompts 4 --categories "background change" "character reference" '
                '"local edit" "style reference"',
            ),
            "distance to the true target, since identity means nothing there; the differences are "
            "skewed, and sign flips take them as symmetric without an effect",
        ),
        Verdict(
            "IP-Adapter: the top 25 % of 128 tokens take 72 %, and 64 keep 97.6 %",
            "72 %, 97.6 % at 64 (Section 3.4)",
            "-",
            _ip_adapter(found),
            *_of_adapter(found),
            "this adapter; Pocket's is small and shows a picture as 32 windows of 4 tokens each; "
            "MobileNetV2 identity in the place of DINOv2",
        ),
        Verdict(
            "Table 1 averages two benchmarks, and Table 2 is one of them",
            "captions of Tables 1 and 2",
            "ReCAST, fixed budget, self-attention and random agree in all 12 numbers",
            "-",
            UNTESTABLE,
            "-",
            "a remark: both captions hold only if the two benchmarks gave the same 12 means",
        ),
    ]


def _of_one_kind(found: Measured) -> str:
    """What the mean over all prompts hides, where it was measured."""
    name = "reused_above_fresh_of_one_kind"
    value = found.get(name)
    if value is None:
        return ""
    excludes = value.low is not None and value.low > -LITTLE
    return (
        f"; for the same kind of edit alone {found.text(name, '+.3f')}, which "
        f"{'excludes' if excludes else 'does not exclude'} a loss of {LITTLE}"
    )


def _kept(found: Measured) -> str:
    kept, gain = found.text("retention", ".1%"), found.get("reference_gain")
    if kept == "-" or gain is None:
        return kept
    added = replace(gain, count=None).text(".0%")
    return f"{kept}; {added} of what the reference adds"


def _toca_costs_little(found: Measured) -> Judged:
    command, pairs = "token_cache", found.get("token_cache_above_recast")
    if pairs is None and found.get("token_cache_retention") is not None:
        return (
            UNDECIDED,
            f"pairs with ReCAST alone were not compared; recast-probe study {command} does it",
        )
    return small_loss(found, "token_cache_above_recast", LITTLE, command)


def _with_toca(found: Measured) -> str:
    parts = [found.text("token_cache_above_recast", "+.3f")]
    both = found.get("token_cache_retention")
    if both is not None:
        parts.append(f"together {both.mean:.1%} of the full run")
    return "; ".join(part for part in parts if part != "-") or "-"


def _of_adapter(found: Measured) -> Judged:
    """Skew and retention, unless the subject's own picture adds nothing: then neither says any."""
    command = "ip_adapter"
    for name, other in (("none", "without any"), ("other", "with another subject's picture")):
        adds = found.get(f"ip_adapter_above_{name}")
        if adds is not None and (adds.low is None or adds.low <= 0):
            return UNDECIDED, (
                f"identity with all tokens is not shown to be above identity {other} "
                f"({adds.text('+.3f')}), so this adapter says nothing"
            )
    return all_of(
        level(found, "ip_adapter_top25", BLOCK_SHARE, command),
        level(found, "ip_adapter_retention", KEPT, command),
    )


def _ip_adapter(found: Measured) -> str:
    top, kept = found.text("ip_adapter_top25", ".1%"), found.text("ip_adapter_retention", ".1%")
    if "-" in (top, kept):
        return "-"
    tokens = found.get("ip_adapter_tokens")
    of = "the" if tokens is None else f"{tokens.mean:.0f}"
    return f"{top} on the top 25 % of {of} tokens, {kept} kept by half of them"
