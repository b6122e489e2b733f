"""A verdict on one claim, and the measured numbers that it may rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recast_probe.paper_claims.quantity import Quantity
from recast_probe.studies.statistics import holm

TEXT, GENERATION, REFERENCE, STEPS = 512, 4096, 4096, 28

HOLDS = "holds"
IN_DIRECTION = "holds in direction"  # not in size
FAILS = "fails"
FAILS_IF_EQUAL = "fails under equal efficiency"  # of attention and linear layers
IMPOSSIBLE = "impossible"  # under the condition that the verdict rests on
UNDECIDED = "not decided"  # tested, or argued, without a result
UNMEASURED = "not measured"  # a command measures it
UNTESTABLE = "not testable here"  # no command can
VERDICTS = (
    HOLDS,
    IN_DIRECTION,
    FAILS,
    FAILS_IF_EQUAL,
    IMPOSSIBLE,
    UNDECIDED,
    UNMEASURED,
    UNTESTABLE,
)

ARITHMETIC = "arithmetic"  # the test of what needs no measurement

# differences whose p-values are corrected for one another, in pairs and of whole subjects
TESTED = {
    "entropy_fall": "marginal entropy of the first step minus the last step's, bits",
    "auroc_above_center": "AUROC of the score minus that of a map that only prefers the middle",
    "auroc_above_other_masks": "AUROC against the subject's mask minus its mean against masks of "
    "other subjects",
    "adaptive_above_flat": "identity with Eq. 4 minus identity with a flat budget",
    "recast_above_self_attention": "difference of identity",
    "self_attention_above_merge": "difference of identity",
    "merge_above_random": "difference of identity",
    "style_transfer_above_others": "what pruning adds to the distance to the true target in style "
    "reference, over what it adds in other categories",
}
MEASURED = TESTED | {
    "top25": "share of generation-to-reference attention on the top 25 % of tokens, of the mean "
    "score",
    "top25_of_blocks": "the same in each block with its own top tokens, averaged over blocks",
    "entropy_first": "marginal entropy of the first step, bits",
    "entropy_last": "marginal entropy of the last step, bits",
    "entropy_maximum": "of as many tokens, bits",
    "auroc": "of the score as a detector of the subject's mask",
    "auroc_center": "of a map that only prefers the middle, against the same masks",
    "auroc_other_masks": "of the score, mean against masks of other subjects",
    "spearman": "mean rank correlation across prompts of one reference",
    "spearman_same_category": "of prompts that ask for one kind of edit",
    "spearman_other_category": "of prompts that ask for different kinds of edit",
    "retention": "identity of ReCAST over identity of the full run",
    "reference_gain": "identity of ReCAST, 0 without the reference and 1 for the full run",
    "reused_above_fresh": "difference of identity of a reused ranking to one of the prompt's own",
    "reused_above_fresh_of_one_kind": "the same where both prompts ask for one kind of edit",
    "amortised_speed_up": "bound by FLOP on the model itself, 100 images a ranking",
    "token_cache_speed_up": "bound by FLOP on the model itself, ReCAST and ToCa together",
    "token_cache_retention": "identity of both together over identity of the full run",
    "token_cache_above_recast": "difference of identity of both together to ReCAST alone",
    "ip_adapter_tokens": "image tokens of the adapter",
    "ip_adapter_top25": "attention on the top 25 % of an adapter's tokens, of the mean score",
    "ip_adapter_retention": "identity with half of an adapter's tokens over that with all",
    "ip_adapter_above_none": "difference of identity with an adapter's tokens to that without any",
    "ip_adapter_above_other": "the same to that with another subject's picture",
}
"""What may be measured; every number may come with its interval, see `Quantity.read`."""


@dataclass(frozen=True)
class Verdict:
    """One claim, judged.

    Attributes:
        claim: in our words.
        paper: its number in the paper, and where.
        allowed: what the config's arithmetic allows; "-" where it says nothing.
        measured: what was measured; "-" where nothing was.
        verdict: one of `VERDICTS`.
        test: what decided, or what would; "-" where there is nothing to test.
        rests_on: the assumption without which the verdict would not follow.

    Examples:
        >>> found = Verdict("a claim", "97 %", "-", "-", UNMEASURED, "-", "one model")
        >>> found.reason
        'one model'
    """

    claim: str
    paper: str
    allowed: str
    measured: str
    verdict: str
    test: str
    rests_on: str

    @property
    def reason(self) -> str:
        """Test and assumption in one."""
        return "; ".join(part for part in (self.test, self.rests_on) if part != "-")

    def to_dict(self) -> dict[str, str]:
        """All fields, and the reason."""
        return asdict(self) | {"reason": self.reason}


class Measured:
    """Quantities by name, and the model that they were measured on.

    Args:
        values: by the names in `MEASURED`, plain or as mappings; "model", whose they are. Other
            names are left aside.

    Attributes:
        model: "an unnamed model" where nobody says.
        p_holm: by name, p-values of the differences in `TESTED`, corrected for one another.

    Raises:
        InputError: see `Quantity.read`.

    Examples:
        >>> found = Measured({"model": "a model", "auroc": {"mean": 0.8, "low": 0.7, "high": 0.9}})
        >>> found.get("auroc").low, found.text("top25")
        (0.7, '-')
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.model = str(values.get("model", "an unnamed model"))
        self.found = {
            name: Quantity.read(name, value)
            for name, value in values.items()
            if name in MEASURED and value is not None
        }
        known = {
            name: self.found[name].p_value
            for name in TESTED
            if name in self.found and self.found[name].p_value is not None
        }
        corrected = holm(np.array(list(known.values()), np.float64))
        self.p_holm = dict(zip(known, corrected.tolist(), strict=True))

    def get(self, name: str) -> Quantity | None:
        """A quantity, None where it was not measured."""
        return self.found.get(name)

    def text(self, name: str, form: str = ".3f") -> str:
        """A quantity as text, "-" where it was not measured."""
        value = self.get(name)
        return "-" if value is None else value.text(form)
