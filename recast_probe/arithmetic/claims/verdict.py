"""A verdict on one claim, and the measured numbers that it may rest on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

TEXT, GENERATION, REFERENCE, STEPS = 512, 4096, 4096, 28

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
    "style_transfer_above_others": "what pruning adds to the distance to the true target in style "
    "reference, over what it adds in other categories",
    "reused_above_fresh": "difference of identity of a reused ranking to one of the prompt's own",
    "amortised_speed_up": "bound by FLOP on the model itself, 100 images a ranking",
    "token_cache_speed_up": "bound by FLOP on the model itself, ReCAST and ToCa together",
    "token_cache_retention": "identity of both together over identity of the full run",
    "ip_adapter_tokens": "image tokens of the adapter",
    "ip_adapter_top25": "attention on the top 25 % of an adapter's tokens",
    "ip_adapter_retention": "identity with half of an adapter's tokens over that with all",
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


class Measured:
    """Numbers with the name of the model that they were measured on."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.model = str(values.pop("model", "an unnamed model"))
        self.values = values

    def number(self, name: str) -> float | None:
        """A number, None where it was not measured."""
        value = self.values.get(name)
        return None if value is None else float(value)

    def text(self, name: str, form: str = ".3f") -> str:
        """A number with its model, "-" where it was not measured."""
        value = self.number(name)
        return "-" if value is None else f"{value:{form}} ({self.model})"

    def difference(self, name: str) -> str:
        """A difference with its interval and model, "-" where it was not measured."""
        value = self.values.get(name)
        if value is None:
            return "-"
        ends = (value["low"], value["high"])
        interval = "" if None in ends else f" [{ends[0]:.3f}, {ends[1]:.3f}]"
        return f"{value['mean']:+.3f}{interval} ({self.model})"

    def judged(
        self, name: str, holds: bool, reason: str, analysis: str = "the analysis"
    ) -> tuple[str, str]:
        """Verdict and reason for a number; `analysis` is what would measure it."""
        if self.number(name) is None:
            return UNTESTED, f"Nothing was measured; run {analysis} and give its summary."
        return (HOLDS if holds else FAILS), f"{reason} That is {self.model}, not the 12 B model."

    def judged_difference(
        self, name: str, reason: str, analysis: str = "analyses.table_1"
    ) -> tuple[str, str]:
        """Verdict and reason for a difference that is claimed to be above zero."""
        value = self.values.get(name)
        if value is None:
            return UNTESTED, f"Nothing was measured; run {analysis} and give its summary."
        p = value["p_value"]
        if p is None or not p <= 0.05:
            chance = "could be chance" if p is None else f"could be chance (p {p:.2g})"
            return UNTESTED, f"{reason}; the difference {chance}."
        verdict = HOLDS if value["mean"] > 0 else FAILS
        return verdict, f"{reason}, p {p:.2g}, on {self.model}, not the 12 B model."
