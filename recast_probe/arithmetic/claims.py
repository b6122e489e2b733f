"""Every claim of the paper: its number, what arithmetic allows, what was measured, a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from recast_probe.arithmetic.config import FluxConfig
from recast_probe.arithmetic.limits import (
    entropy_range,
    eq_4_mean,
    gamma_for_mean,
    largest_top_share,
)
from recast_probe.arithmetic.work import (
    Work,
    needed_attention_slowdown,
    readout_work,
    run_work,
    step_work,
)
from recast_probe.selection.budgets import Adaptive

TEXT, GENERATION, REFERENCE, STEPS = 512, 4096, 4096, 28
A100_PEAK = 312e12  # dense bfloat16 FLOP/s of an A100, from its data sheet
PAPER_BUDGET = Adaptive(256, 1024, gamma=2.0)

HOLDS, FAILS = "holds", "fails"
IMPOSSIBLE, UNTESTED = "impossible", "not testable here"

MEASURED = {
    "top25": "share of generation-to-reference attention on the top 25 % of tokens",
    "entropy_first": "marginal entropy of the first step, bits",
    "entropy_last": "marginal entropy of the last step, bits",
    "auroc": "of the score as a detector of the subject's mask",
    "spearman": "mean rank correlation across prompts of one reference",
    "retention": "identity of ReCAST over identity of the full run",
    "recast_above_self_attention": "difference of identity, with its interval and p-value",
    "self_attention_above_merge": "the same",
    "merge_above_random": "the same",
    "adaptive_above_flat": "the same",
}


@dataclass(frozen=True)
class Verdict:
    """One claim, judged.

    Attributes:
        claim: in our words.
        paper: its number in the paper, and where.
        allowed: what the config's arithmetic allows; "-" where it says nothing.
        measured: what was measured, on which model; "-" where nothing was.
        verdict: "holds", "fails", "impossible" or "not testable here".
        reason: one sentence.
    """

    claim: str
    paper: str
    allowed: str
    measured: str
    verdict: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """All fields."""
        return asdict(self)


def check_claims(config: FluxConfig, measured: Mapping[str, Any] | None = None) -> list[Verdict]:
    """Judge every claim for 1024 x 1024 pixels and 28 steps of a model of this config.

    "Impossible" is said only where arithmetic excludes a claim under the assumption named in its
    reason.

    Args:
        measured: numbers by the names in `MEASURED`, and "model", whose they are. A difference is
            a mapping with mean, low, high and p_value.
    """
    found = _Measured(dict(measured or {}))
    return [
        *_concentration(found),
        *_budget(found),
        *_speed(config),
        *_quality(found),
    ]


class _Measured:
    """Numbers with the name of the model that they were measured on."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.model = str(values.pop("model", "an unnamed model"))
        self.values = values

    def number(self, name: str) -> float | None:
        value = self.values.get(name)
        return None if value is None else float(value)

    def text(self, name: str, form: str = ".3f") -> str:
        value = self.number(name)
        return "-" if value is None else f"{value:{form}} ({self.model})"

    def difference(self, name: str) -> str:
        value = self.values.get(name)
        if value is None:
            return "-"
        return f"{value['mean']:+.3f} [{value['low']:.3f}, {value['high']:.3f}] ({self.model})"

    def judged(self, name: str, holds: bool, reason: str) -> tuple[str, str]:
        if self.number(name) is None:
            return UNTESTED, "Nothing was measured; run the analysis and give its summary."
        return (HOLDS if holds else FAILS), f"{reason} That is {self.model}, not the 12 B model."


def _concentration(found: _Measured) -> list[Verdict]:
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


def _budget(found: _Measured) -> list[Verdict]:
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
            "The stated minimum, maximum and gamma give another mean, unless the profiled step is "
            "counted in.",
        ),
        Verdict(
            "Late steps need a more focused set, so the budget grows",
            "Eq. 4 rises while entropy falls (Section 2.4)",
            f"{PAPER_BUDGET.minimum} to {PAPER_BUDGET.maximum} tokens as entropy falls",
            found.difference("adaptive_above_flat"),
            *_difference(
                found,
                "adaptive_above_flat",
                "The schedule runs against the trend that motivates it",
            ),
        ),
        Verdict(
            "Blocks 20 to 56 are the single-stream blocks",
            "20..56 (Section 2.3)",
            "single-stream blocks are 19 to 56",
            "-",
            FAILS,
            "FLUX.1 has 38 single-stream blocks, global indices 19 to 56; the paper's range is 37 "
            "of them.",
        ),
    ]


def _speed(config: FluxConfig) -> list[Verdict]:
    full, kept_600 = _step(config, REFERENCE), _step(config, 600)
    none = _step(config, 0)
    whole = run_work(config, TEXT, GENERATION, [REFERENCE] * STEPS)
    recast = run_work(
        config, TEXT, GENERATION, [REFERENCE, *PAPER_BUDGET.schedule(STEPS)[1:].tolist()]
    )
    bound, ceiling = full.total / kept_600.total, full.total / none.total
    slowdown = needed_attention_slowdown(whole, recast, 2.4)
    needed = "no slowdown is enough" if slowdown is None else f"{slowdown:.1f} times"
    rates = [work.total / seconds for work, seconds in ((whole, 14.2), (recast, 5.9))]
    sweep = [(2048, 1.5), (1024, 2.0), (512, 2.6), (256, 2.9)]
    bounds = [full.total / _step(config, tokens).total for tokens, _ in sweep]
    above = sum(speed > limit for (_, speed), limit in zip(sweep, bounds, strict=True))
    readout = readout_work(config, GENERATION, REFERENCE)
    cached = run_work(
        config,
        TEXT,
        GENERATION,
        [REFERENCE, *PAPER_BUDGET.schedule(STEPS)[1:].tolist()],
        computed=20,
    )
    equal = "if attention is as efficient as linear layers"
    return [
        Verdict(
            "2.4x faster at 600 tokens",
            "2.4x (Table 1)",
            f"at most {bound:.3f}x a step at 600 tokens, {whole.total / recast.total:.2f}x for the "
            f"run, {ceiling:.3f}x without any reference",
            "-",
            IMPOSSIBLE if ceiling < 2.4 else UNTESTED,
            f"Above the bound for no reference at all, {equal}; attention would have to run "
            f"{needed} less efficiently.",
        ),
        Verdict(
            "The budget sweep's speeds",
            ", ".join(f"{speed}x at {tokens}" for tokens, speed in sweep) + " (Section 3.4)",
            ", ".join(f"{limit:.2f}x" for limit in bounds),
            "-",
            IMPOSSIBLE if above == len(sweep) else FAILS if above else UNTESTED,
            f"{above} of {len(sweep)} are above their bound, {equal}.",
        ),
        Verdict(
            "14.2 s for the full run and 5.9 s for ReCAST on an A100",
            "14.2 s, 5.9 s (Table 1)",
            " and ".join(f"{rate / 1e12:.0f} TFLOP/s" for rate in rates)
            + f" needed; the dense peak is {A100_PEAK / 1e12:.0f}",
            "-",
            IMPOSSIBLE if min(rates) > A100_PEAK else UNTESTED,
            "Every one of the 28 steps must be computed densely in bfloat16 for this to count; "
            "fewer steps, sparsity or 8-bit arithmetic would change it.",
        ),
        Verdict(
            "Profiling is cheap",
            "amortised (Section 3.4)",
            f"{readout / 1e12:.1f} TFLOP: {readout / full.total:.1%} of its step, "
            f"{readout / whole.total:.2%} of the run",
            "-",
            HOLDS,
            "True where the row log-sum-exp of the fused kernel is known; a materialised softmax "
            "costs memory for the whole table.",
        ),
        Verdict(
            "2.59x after 100 generations with one ranking",
            "2.59x (Section 3.4)",
            f"at most {full.total / _step(config, PAPER_BUDGET.minimum).total:.2f}x at the least "
            f"budget, {ceiling:.2f}x without any reference",
            "-",
            IMPOSSIBLE if ceiling < 2.59 else UNTESTED,
            f"Above the bound for no reference at all, {equal}.",
        ),
        Verdict(
            "3.38x together with ToCa",
            "3.38x (Section 3.4)",
            f"{whole.total / cached.total:.2f}x with 20 of 28 steps computed; more with fewer",
            "-",
            UNTESTED,
            "Caching computes fewer steps, so arithmetic does not exclude it; it needs trained "
            "weights and a GPU to be measured.",
        ),
    ]


def _quality(found: _Measured) -> list[Verdict]:
    kept = found.number("retention")
    rows = [
        ("recast_above_self_attention", "ReCAST above Attn-Prune", "0.761 > 0.703 (Table 1)"),
        ("self_attention_above_merge", "Attn-Prune above ToMe", "0.703 > 0.691 (Table 1)"),
        ("merge_above_random", "ToMe above random", "0.691 > 0.618 (Table 1)"),
    ]
    verdicts = [
        Verdict(
            "ReCAST keeps 97.3 % of the identity score",
            "97.3 % (Table 1)",
            "-",
            found.text("retention", ".1%"),
            *found.judged("retention", (kept or 0) >= 0.95, "A retention of 95 % was asked for."),
        )
    ]
    for name, claim, paper in rows:
        verdicts.append(
            Verdict(
                claim,
                paper,
                "-",
                found.difference(name),
                *_difference(found, name, "Identity was compared in pairs"),
            )
        )
    untested = [
        ("A reused ranking costs 0.006", "-0.006 DINO (Section 3.4)"),
        ("Style transfer is the worst case", "-0.027 DINO (Section 3.4)"),
        ("IP-Adapter: the top 25 % of 128 tokens take 72 %", "72 %, 97.6 % at 64 (Section 3.4)"),
    ]
    needs = "It needs trained weights that do not ship; the same analysis runs on them."
    return verdicts + [Verdict(c, p, "-", "-", UNTESTED, needs) for c, p in untested]


def _difference(found: _Measured, name: str, reason: str) -> tuple[str, str]:
    value = found.values.get(name)
    if value is None:
        return UNTESTED, "Nothing was measured; run analyses.table_1 and give its summary."
    if value["p_value"] > 0.05:
        return UNTESTED, f"{reason}; the difference could be chance (p {value['p_value']:.2g})."
    verdict = HOLDS if value["mean"] > 0 else FAILS
    return verdict, f"{reason}, p {value['p_value']:.2g}, on {found.model}, not the 12 B model."


def _step(config: FluxConfig, reference: int) -> Work:
    return step_work(config, TEXT, GENERATION, reference)


def _log2(tokens: int) -> float:
    return entropy_range(tokens, tokens // 4, 0.25)[1]
