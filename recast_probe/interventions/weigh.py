"""Weighing edges: some tokens attend more, or less, to some others."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch.nn import functional

from recast_probe._utils.checks import check_finite
from recast_probe.attention.inputs import AttentionInputs, Cut
from recast_probe.attention.log_sum_exp import default_scale
from recast_probe.errors import InputError
from recast_probe.interventions.base import RunContext, RunHook
from recast_probe.interventions.edges import EdgeHook, EdgeIntervention
from recast_probe.interventions.needs import Needs
from recast_probe.interventions.selective import Indices

MODES = ("scale", "bias")
# fused kernels take heads of a multiple of 8 channels
SPARE = 8


@dataclass(frozen=True)
class Weigh(EdgeIntervention):
    """Multiply the attention that some queries pay a token group, before the softmax.

    Token groups are those of ``Knockout``. It is exact, and profiles are those of the changed
    attention. Queries and keys get more channels: in the mode "scale" twice as many, in "bias"
    eight more. A factor of 1 changes nothing, and runs nothing else. Merged tokens can be weighed
    as a whole group.

    Attributes:
        group: the keys whose logits are changed.
        factor: in the mode "scale" any number, in "bias" at least 0.
        to_group: the queries.
        tokens: indices within ``group``, of the full reference; None for all of it.
        blocks: see ``select_blocks``.
        heads, steps: an index, several, or None for all.
        mode: "scale" multiplies the logits, as if the keys were ``factor`` times as long; "bias"
            adds log(factor) to them, which multiplies the odds of each key: 0 is the cut of
            ``Knockout``, and n the weight of n copies of every token.

    Raises:
        InputError: a factor that is not finite or, as a bias, negative; an unknown mode. When the
            run is prepared: a group, token, block, head or step that it does not have.

    Examples:
        >>> Weigh("reference", 2, mode="bias", blocks="single").describe()["factor"]
        2.0
    """

    group: str
    factor: float
    to_group: str = "generation"
    tokens: Indices = None
    blocks: Any = "all"
    heads: Indices = None
    steps: Indices = None
    mode: Literal["scale", "bias"] = "scale"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "factor", check_finite("factor", self.factor))
        if self.mode not in MODES:
            raise InputError(f"mode must be one of {MODES}, not {self.mode!r}.")
        if self.mode == "bias" and self.factor < 0:
            raise InputError(f"There is no logarithm of factor={self.factor}; use mode='scale'.")

    @property
    def from_group(self) -> str:  # type: ignore[override]
        """The keys."""
        return self.group

    def needs(self, run: RunContext) -> Needs:
        needs = super().needs(run)
        if self.tokens is not None or any("reference_" in g for g in (self.group, self.to_group)):
            return needs
        return replace(needs, reads=(), attends=needs.reads)

    def hook(self, run: RunContext) -> RunHook:
        return WeighHook(self, run)


class WeighHook(EdgeHook):
    """Weighs the edges of one run.

    Kernels know no logits that differ by query, so what is added to q k stands in more channels:
    with c = 1 for the chosen queries and 0 for others, [q (1 - c), q c] [k, f k] is the scaled
    logit, and [q, c] [k, log f] the one with a bias.
    """

    settings: Weigh

    def __init__(self, settings: Weigh, run: RunContext) -> None:
        super().__init__(settings, run)
        if settings.factor == 1:
            self.steps = []

    def attention_logits(self, block: int, inputs: AttentionInputs) -> AttentionInputs:
        query, key = inputs.query, inputs.key
        factor, heads = self.settings.factor, self.settings.heads
        rows, columns = (each.to(key.device) for each in self.edges(query.shape[1], key.shape[1]))
        if not len(rows) or not len(columns):
            return inputs
        if self.settings.mode == "bias" and factor == 0:
            return replace(inputs, cuts=(*inputs.cuts, Cut(rows, columns, heads)))  # type: ignore[arg-type]
        scale = default_scale(query) if inputs.scale is None else inputs.scale
        chosen = query.new_zeros((1, *query.shape[1:3], 1))
        every = range(query.shape[2]) if heads is None else heads
        chosen[:, rows[:, None], torch.as_tensor(every, device=key.device)] = 1
        if self.settings.mode == "scale":
            scaled = key.index_copy(1, columns, key[:, columns] * factor)
            query = torch.cat([query * (1 - chosen), query * chosen], dim=-1)
            key = torch.cat([key, scaled], dim=-1)
        else:
            bias = key.new_zeros((*key.shape[:3], SPARE))
            left = math.log(factor) / scale
            for place in range(3):  # what one number of the dtype loses, the next ones have
                bias[:, columns, :, place] = left
                left -= float(torch.tensor(left, dtype=key.dtype))
            query = torch.cat([query, chosen.expand(*query.shape[:3], SPARE)], dim=-1)
            key = torch.cat([key, bias], dim=-1)
        value = functional.pad(inputs.value, (0, key.shape[-1] - inputs.value.shape[-1]))
        return replace(inputs, query=query, key=key, value=value, scale=scale)
