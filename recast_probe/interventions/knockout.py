"""Cutting edges: some tokens do not see some others (attention knockout)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from recast_probe.attention.cuts import REMOVALS
from recast_probe.attention.inputs import AttentionInputs, Cut
from recast_probe.errors import InputError
from recast_probe.interventions.base import RunContext, RunHook
from recast_probe.interventions.edges import EdgeHook, EdgeIntervention
from recast_probe.interventions.selective import Indices


@dataclass(frozen=True)
class Knockout(EdgeIntervention):
    """Nothing flows from one group of tokens to another: those queries do not see these keys.

    ``Knockout("reference", "generation")`` keeps generation tokens from reading the reference
    themselves; what text tokens have read of it they still get. Groups are "text" and
    its parts "padding", "vision" (patches of a picture that the text encoder saw) and "prompt",
    "generation", "reference", and "reference_<i>" of several images. Both ends may be one group:
    then its tokens do not see each other, nor themselves.

    The method is attention knockout (Geva et al., arXiv 2304.14767). Several knockouts combine;
    indices always count the full reference, even when other interventions drop tokens. All branches
    are cut alike. The cut attention is exact and costs about one kernel call more for every group
    of queries; a query that is left without any key has the attention output 0.

    Attributes:
        from_group: the keys, where information comes from.
        to_group: the queries, where it would go.
        tokens: indices within ``from_group``; None for all of it, none at all for no cut.
        blocks: see ``select_blocks``.
        heads, steps: an index, several, or None for all.
        removal: "renormalised" leaves the keys out of the softmax, so that the other keys share
            their probability; "value-zeroed" leaves all probabilities as they are, and nothing is
            added for these keys. Only the first, at both ``to_group="generation"`` and "text",
            amounts to a run that never had the tokens.

    Raises:
        InputError: a head or step that is not an index, or an unknown removal. When the run is
            prepared: a group, token, block, head or step that it does not have.

    Examples:
        >>> cut = Knockout("reference", "generation", blocks="double", heads=1, steps=range(4))
        >>> cut.heads, cut.steps
        ((1,), (0, 1, 2, 3))
    """

    from_group: str
    to_group: str
    tokens: Indices = None
    blocks: Any = "all"
    heads: Indices = None
    steps: Indices = None
    removal: Literal["renormalised", "value-zeroed"] = "renormalised"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.removal not in REMOVALS:
            raise InputError(f"removal must be one of {REMOVALS}, not {self.removal!r}.")

    def hook(self, run: RunContext) -> RunHook:
        return KnockoutHook(self, run)


class KnockoutHook(EdgeHook):
    """Adds the cut of one Knockout to the attention of one run."""

    settings: Knockout
    cut_calls = 0

    def attention_inputs(self, block: int, inputs: AttentionInputs) -> AttentionInputs:
        queries, keys = self.edges(inputs.query.shape[1], inputs.key.shape[1])
        if not len(queries) or not len(keys):
            return inputs
        self.cut_calls += 1
        cut = Cut(queries, keys, self.settings.heads, self.settings.removal)  # type: ignore[arg-type]
        return replace(inputs, cuts=(*inputs.cuts, cut))

    def facts(self) -> dict[str, Any]:
        return {"attention_calls_cut": self.cut_calls}
