"""Edges of attention from one token group to another, also where other tokens are dropped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recast_probe.interventions.base import RunContext, describe_tokens
from recast_probe.interventions.needs import Needs
from recast_probe.interventions.selective import Selective, SelectiveHook, indices
from recast_probe.interventions.token_groups import (
    base_group,
    check_group,
    positions,
    present_positions,
)
from recast_probe.layout import TokenLayout


class EdgeIntervention(Selective):
    """Acts on the attention that some queries pay some keys.

    Attributes:
        from_group: the keys, where information comes from.
        to_group: the queries, where it would go.
        tokens: indices within ``from_group``; None for all of it.
    """

    from_group: str
    to_group: str
    tokens: Any

    def __post_init__(self) -> None:
        for name in ("tokens", "heads", "steps"):
            object.__setattr__(self, name, indices(name, getattr(self, name)))

    def prepare(self, run: RunContext) -> None:
        check_group(self.from_group, run, self.tokens)
        check_group(self.to_group, run)
        super().prepare(run)

    def needs(self, run: RunContext) -> Needs:
        steps = self.chosen_steps(run)
        # for queries of other tokens, keys from an earlier step are like any others
        group = base_group(self.to_group)
        rows = steps if group == "reference" else ()
        return Needs(
            reads=steps,
            reference_rows=rows,
            inside_attention=True,
            queries=[group],
        )

    def describe(self) -> dict[str, Any]:
        settings = super().describe()
        if self.tokens is not None:
            count, digest = describe_tokens(self.tokens)
            settings["tokens"] = {"count": count, "sha256": digest}
        return settings


class EdgeHook(SelectiveHook):
    """Finds the edges of an intervention in the attention of one run."""

    def __init__(self, settings: EdgeIntervention, run: RunContext) -> None:
        empty = settings.tokens == () or settings.heads == ()
        steps = [] if empty else settings.chosen_steps(run)
        super().__init__(run, settings.chosen_blocks(run), steps)
        self.settings = settings
        self._found: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def begin_call(self, step: int, branch: str, layout: TokenLayout) -> None:
        super().begin_call(step, branch, layout)
        self._found = {}

    def begin_rows(self, branch: str) -> None:
        super().begin_rows(branch)
        self._found = {}

    def edges(self, queries: int, keys: int) -> tuple[Tensor, Tensor]:
        """Where its queries and its keys stand in sequences of these lengths, int64, ascending."""
        if (queries, keys) not in self._found:
            settings, run, branch = self.settings, self.run, self.branch
            source = positions(settings.from_group, run, branch)
            if settings.tokens is not None:
                source = source[list(settings.tokens)]
            target = positions(settings.to_group, run, branch)
            self._found[queries, keys] = (
                torch.as_tensor(present_positions(target, run, queries, branch)),
                torch.as_tensor(present_positions(source, run, keys, branch)),
            )
        return self._found[queries, keys]
