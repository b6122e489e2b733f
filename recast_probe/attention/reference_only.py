"""Attention to the reference alone: a softmax over reference tokens and nothing else.

An IP-Adapter attends so, beside the block's own attention: generation tokens are the queries, the
adapter's image tokens all of the keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from recast_probe._utils.checks import check_indices
from recast_probe.attention.autocast import outside_autocast
from recast_probe.attention.exact_heads import exact_in_every_head, kernel_error
from recast_probe.attention.log_sum_exp import attention_with_log_sum_exp, default_scale
from recast_probe.attention.readout import GENERATION_TO_REFERENCE, PairStatistics, Readout
from recast_probe.attention.rows import distance_from_one, pair_entropies
from recast_probe.attention.sums import log_probabilities, pair_sums
from recast_probe.errors import InputError, VerificationError
from recast_probe.layout import TokenLayout

PAIR = GENERATION_TO_REFERENCE[0]


@outside_autocast
def attend_to_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: TokenLayout,
    *,
    pairs: Sequence[tuple[str, str]] = GENERATION_TO_REFERENCE,
    chunk: int | None = None,
    scale: float | None = None,
    heads: Sequence[int] | None = None,
    row_sum_tolerance: float = 1e-3,
) -> Readout:
    """Compute attention to the reference alone, and how much of it each token gets (Eq. 2).

    The mass that generation tokens give to the reference is 1 by construction, and is reported as
    it was summed; text and generation tokens get 0. No other query group takes part: their rows of
    the mass table are NaN.

    Args:
        query: (batch, generation token, head, dim).
        key, value: (batch, reference token, head, dim).
        layout: the token groups.
        pairs: nothing but generation to reference can be read.
        chunk: query rows at a time; by default as in ``attend``.
        scale: factor on the scores; 1 / sqrt(dim) by default.
        heads: statistics for these heads only, in this order; the output has all of them.
        row_sum_tolerance: the largest accepted distance from 1 of a row's sum; every row is summed.

    Raises:
        InputError: shapes or heads that do not fit, or another pair of groups.
        VerificationError: probabilities do not sum to 1: the log-sum-exp is not this attention's.
    """
    _check(query, key, value, layout, pairs, heads)
    result = attention_with_log_sum_exp(query, key, value, scale)
    if scale is None:
        scale = default_scale(query)
    lse = result.log_sum_exp
    if heads is not None:
        index = torch.as_tensor(list(heads), device=query.device)
        query, key, lse = query[:, :, index], key[:, :, index], lse[:, index]
    sums = pair_sums(query, key, lse, scale, chunk=chunk)
    assert sums.row_mass is not None
    assert sums.column_sum is not None
    worst = distance_from_one(sums.row_mass)
    exact_in_every_head(sums.column_sum, query, key, slice(None), scale, kernel_error(result))
    # written so that NaN fails
    if not worst <= row_sum_tolerance:
        raise VerificationError(
            f"Attention probabilities miss the sum 1 by {worst:.3g} in a row (at most "
            f"{row_sum_tolerance:g} is accepted): the log-sum-exp of the {result.backend} kernel "
            "does not belong to this attention. Do not use these numbers."
        )
    count, shape = query.shape[1], lse.shape[:2]
    generation, reference = (layout.groups.index(group) for group in PAIR)
    table = torch.full((*shape, len(layout.groups), len(layout.groups)), math.nan)
    table = table.to(query.device)
    table[:, :, generation] = 0
    table[:, :, generation, reference] = sums.row_mass.sum(-1) / count
    entropies = pair_entropies(
        sums, lambda rows: log_probabilities(query[:, rows], key, lse[..., rows], scale)
    )
    statistics = PairStatistics(sums.column_sum / count, *entropies)
    return Readout(result.output, {PAIR: statistics}, table, layout.groups, worst, result.backend)


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: TokenLayout,
    pairs: Sequence[tuple[str, str]],
    heads: Sequence[int] | None,
) -> None:
    others = [pair for pair in pairs if tuple(pair) != PAIR]
    if others:
        source, target = others[0]
        raise InputError(
            f"Attention of {source} to {target} tokens cannot be read: this softmax has the "
            "generation tokens as queries and the reference tokens as keys, and no others."
        )
    if query.ndim != 4 or key.ndim != 4 or key.shape != value.shape:
        raise InputError(
            "query, key and value must have the shape (batch, token, head, dim), got "
            f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}."
        )
    expected = (query.shape[0], layout.reference_tokens, *query.shape[2:])
    if query.shape[1] != layout.generation.size or key.shape != expected or not expected[1]:
        raise InputError(
            f"The layout has {layout.generation.size} generation and {layout.reference_tokens} "
            f"reference tokens, but query is {tuple(query.shape)} and key {tuple(key.shape)}."
        )
    if heads is not None:
        check_indices("heads", heads, query.shape[2])
