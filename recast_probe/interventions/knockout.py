"""Cutting edges: some tokens do not see some others (attention knockout)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from recast_probe._utils.checks import check_indices
from recast_probe.attention.cuts import REMOVALS
from recast_probe.attention.inputs import AttentionInputs, Cut
from recast_probe.blocks import select_blocks
from recast_probe.errors import InputError
from recast_probe.interventions.base import (
    Attachment,
    Intervention,
    RunContext,
    describe_blocks,
)
from recast_probe.interventions.token_groups import check_group, positions, present_positions
from recast_probe.layout import TokenLayout

if TYPE_CHECKING:
    from recast_probe.pipelines.base import Family

Indices = int | Sequence[int] | None


@dataclass(frozen=True)
class Knockout(Intervention):
    """Nothing flows from one group of tokens to another: those queries do not see these keys.

    ``Knockout("reference", "generation")`` keeps generation tokens from reading the reference
    themselves; what text tokens have read of it they still get. Groups are "text" and
    its parts "padding", "vision" (patches of a picture that the text encoder saw) and "prompt",
    "generation", "reference", and "reference_<i>" of several images. Both ends may be one group:
    then its tokens do not see each other, nor themselves.

    Several in a list cut all of their edges, in any company: token indices count the full
    reference, also while other interventions drop some of it. All branches are cut alike. The cut
    attention is exact and costs about one kernel call more for every group of queries; a query that
    is left without any key has the attention output 0.

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
        InputError: a setting that cannot be.
    """

    from_group: str
    to_group: str
    tokens: Indices = None
    blocks: Any = "all"
    heads: Indices = None
    steps: Indices = None
    removal: Literal["renormalised", "value-zeroed"] = "renormalised"

    def __post_init__(self) -> None:
        for name in ("tokens", "heads", "steps"):
            object.__setattr__(self, name, _indices(name, getattr(self, name)))
        if self.removal not in REMOVALS:
            raise InputError(f"removal must be one of {REMOVALS}, not {self.removal!r}.")

    def prepare(self, run: RunContext) -> None:
        check_group(self.from_group, run, self.tokens)  # type: ignore[arg-type]
        check_group(self.to_group, run)
        select_blocks(self.blocks, run.block_kinds)
        check_indices("steps", self.steps, run.steps, empty=True)

    def acting_steps(self, run: RunContext) -> set[int]:
        """Steps in which edges are cut."""
        return set(range(run.steps)) if self.steps is None else set(self.steps)  # type: ignore[arg-type]

    def reading_steps(self, run: RunContext) -> set[int]:
        return self.acting_steps(run)

    def reference_row_steps(self, run: RunContext) -> set[int]:
        # queries of other tokens are cut alike from keys that come from an earlier step
        return self.acting_steps(run) if self.to_group.startswith("reference") else set()

    @contextmanager
    def attached(self, family: Family, run: RunContext) -> Iterator[Attachment]:
        if not all(call.operations for call in family.attention_calls()):
            raise InputError(
                f"Attention of {family.name} is read beside the pipeline's own and cannot be "
                "changed, so nothing can be cut in it."
            )
        check_indices("heads", self.heads, family.heads, empty=True)
        yield Scissors(self, run)

    def describe(self) -> dict[str, Any]:
        tokens: Any = None
        if self.tokens is not None:
            named = np.array(self.tokens, dtype="<i8")
            tokens = {"count": len(named), "sha256": hashlib.sha256(named.tobytes()).hexdigest()}
        return {
            "name": "Knockout",
            "from_group": self.from_group,
            "to_group": self.to_group,
            "tokens": tokens,
            "blocks": describe_blocks(self.blocks),
            "heads": None if self.heads is None else list(self.heads),  # type: ignore[arg-type]
            "steps": None if self.steps is None else list(self.steps),  # type: ignore[arg-type]
            "removal": self.removal,
        }


class Scissors(Attachment):
    """Adds the cut of one Knockout to the attention of one run."""

    def __init__(self, knockout: Knockout, run: RunContext) -> None:
        self.knockout, self.run = knockout, run
        self.blocks = set(select_blocks(knockout.blocks, run.block_kinds))
        self.steps = knockout.acting_steps(run)
        self.cut_calls = 0
        self._acts, self._branch = False, ""
        self._made: dict[tuple[int, int], Cut] = {}

    def begin_call(self, step: int, branch: str, layout: TokenLayout) -> None:
        nothing = self.knockout.tokens == () or self.knockout.heads == ()
        self._acts, self._branch = step in self.steps and not nothing, branch
        self._made = {}

    def changes_attention(self, block: int) -> bool:
        return self._acts and block in self.blocks

    def attention_inputs(self, block: int, inputs: AttentionInputs) -> AttentionInputs:
        lengths = (inputs.query.shape[1], inputs.key.shape[1])
        if lengths not in self._made:
            self._made[lengths] = self._cut(*lengths)
        cut = self._made[lengths]
        if not len(cut.queries) or not len(cut.keys):
            return inputs
        self.cut_calls += 1
        return replace(inputs, cuts=(*inputs.cuts, cut))

    def _cut(self, queries: int, keys: int) -> Cut:
        settings = self.knockout
        source = positions(settings.from_group, self.run, self._branch)
        if settings.tokens is not None:
            source = source[list(settings.tokens)]  # type: ignore[arg-type]
        target = positions(settings.to_group, self.run, self._branch)
        return Cut(
            queries=torch.as_tensor(present_positions(target, self.run, queries, self._branch)),
            keys=torch.as_tensor(present_positions(source, self.run, keys, self._branch)),
            heads=settings.heads,  # type: ignore[arg-type]
            removal=settings.removal,
        )

    def facts(self) -> dict[str, Any]:
        return {"attention_calls_cut": self.cut_calls}


def _indices(name: str, given: Any) -> tuple[int, ...] | None:
    return None if given is None else tuple(check_indices(name, given, empty=True))
