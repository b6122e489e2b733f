"""Exact attention statistics, streamed: never a matrix of sequence x sequence.

With the row log-sum-exp of the fused kernel, exp(scale * q k^T - lse) is the exact attention
probability; it is made for a few query rows at a time and reduced at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from recast_probe.attention.log_sum_exp import (
    at_least_float32,
    attention_with_log_sum_exp,
    default_scale,
)
from recast_probe.attention.rows import distance_from_one, entropy_bits, row_entropy
from recast_probe.errors import InputError, VerificationError
from recast_probe.layout import TokenLayout

CHUNK_BYTES = 32 * 2**20
GENERATION_TO_REFERENCE = (("generation", "reference"),)


@dataclass(frozen=True)
class PairStatistics:
    """How the queries of one token group attend to the keys of another.

    Attributes:
        score: float32 (batch, head, key); Eq. 2: mean over the queries of the probability on
            each key. Sums over keys to the pair's mass.
        marginal_entropy: float32 (batch, head), bits; entropy of the normalised score.
        conditional_entropy: float32 (batch, head), bits; mean over queries of the entropy of
            that query's distribution over the key group, normalised.
    """

    score: Tensor
    marginal_entropy: Tensor
    conditional_entropy: Tensor


@dataclass(frozen=True)
class Readout:
    """Attention's output with its statistics.

    Attributes:
        output: (batch, sequence, head, dim), bit-identical to plain attention.
        pairs: statistics by (query group, key group).
        mass: float32 (batch, head, query group, key group); mean share of attention that each
            group gives each group; rows sum to 1. NaN where a query group was not read.
        groups: names along the last two axes of `mass`.
        row_sum_error: largest distance from 1 of a checked row's sum of probabilities.
        backend: the attention kernel used.
    """

    output: Tensor
    pairs: dict[tuple[str, str], PairStatistics]
    mass: Tensor
    groups: tuple[str, ...]
    row_sum_error: float
    backend: str


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: TokenLayout,
    *,
    pairs: Sequence[tuple[str, str]] = GENERATION_TO_REFERENCE,
    mass_table: Literal["all", "queried"] = "all",
    chunk: int | None = None,
    scale: float | None = None,
    heads: Sequence[int] | None = None,
    verify_rows: int = 8,
    row_sum_tolerance: float = 1e-3,
) -> Readout:
    """Compute attention and, from the same numbers, who attends to whom (Eq. 2).

    Args:
        query, key, value: (batch, sequence, head, dim), sequence as `layout` says.
        layout: the token groups.
        pairs: (query group, key group) pairs to score; the default is Eq. 2's.
        mass_table: "all" reads every query row; "queried" only those of the groups in `pairs`.
        chunk: query rows at a time; it bounds the extra memory to about 3 * 4 bytes * batch *
            heads * sequence * chunk. The default keeps that near 32 MiB.
        scale: factor on the scores; 1 / sqrt(dim) by default.
        heads: statistics for these heads only, in this order; the output has all of them.
        verify_rows: rows per query group whose sum over all keys is checked ("queried" only;
            with "all" every row is).
        row_sum_tolerance: the largest accepted distance of such a sum from 1.

    Raises:
        InputError: shapes, layout, heads or groups that do not fit.
        VerificationError: probabilities do not sum to 1: the log-sum-exp is not this attention's.
    """
    _check(query, key, value, layout, pairs, mass_table, chunk, heads)
    result = attention_with_log_sum_exp(query, key, value, scale)
    if scale is None:
        scale = default_scale(query)
    lse = result.log_sum_exp
    if heads is not None:
        index = torch.as_tensor(list(heads), device=query.device)
        query, key, lse = query[:, :, index], key[:, :, index], lse[:, index]
    stream = _Stream(
        query.permute(0, 2, 1, 3),
        at_least_float32(key).permute(0, 2, 3, 1),
        lse[..., None],
        scale,
        layout,
    )
    row_bytes = 3 * 4 * query.shape[0] * query.shape[2] * layout.total
    chunk = chunk or max(1, CHUNK_BYTES // row_bytes)
    queried = {source for source, _ in pairs}
    wanted = [
        group
        for group in layout.groups
        if (mass_table == "all" or group in queried) and _size(layout, group)
    ]
    found: dict[tuple[str, str], PairStatistics] = {}
    mass = torch.full(
        (*lse.shape[:2], len(layout.groups), len(layout.groups)), math.nan, device=query.device
    )
    worst = 0.0
    for group in wanted:
        targets = [target for source, target in pairs if source == group]
        row, statistics, error = stream.read(
            group, targets, chunk, whole_rows=mass_table == "all", verify_rows=verify_rows
        )
        mass[:, :, layout.groups.index(group)] = row
        found |= {(group, target): value for target, value in statistics.items()}
        worst = max(worst, error)
    # written so that NaN fails
    if not worst <= row_sum_tolerance:
        raise VerificationError(
            f"Attention probabilities miss the sum 1 by {worst:.3g} in a row (at most "
            f"{row_sum_tolerance:g} is accepted): the log-sum-exp of the {result.backend} kernel "
            "does not belong to this attention. Do not use these numbers."
        )
    return Readout(result.output, found, mass, layout.groups, worst, result.backend)


class _Stream:
    """Rows of probabilities of one attention call, made chunk by chunk."""

    def __init__(
        self, query: Tensor, keys: Tensor, lse: Tensor, scale: float, layout: TokenLayout
    ) -> None:
        # query (batch, head, token, dim), keys (batch, head, dim, token), lse (.., token, 1)
        self.query, self.keys, self.lse, self.scale, self.layout = query, keys, lse, scale, layout

    def log_probabilities(self, rows: slice | Tensor, columns: slice) -> Tensor:
        """Natural logarithm of the probabilities, at least float32 (batch, head, row, column)."""
        scores = at_least_float32(self.query[:, :, rows]) @ self.keys[..., columns]
        return scores.mul_(self.scale).sub_(self.lse[:, :, rows])

    def read(
        self, group: str, targets: Sequence[str], chunk: int, *, whole_rows: bool, verify_rows: int
    ) -> tuple[Tensor, dict[str, PairStatistics], float]:
        """Row of the mass table (batch, head, key group), statistics by target, row-sum error."""
        span, groups = self.layout.span(group), self.layout.groups
        count = span.stop - span.start
        shape = self.lse.shape[:2]
        columns = {name: self.layout.span(name) for name in dict.fromkeys((*groups, *targets))}
        # where every group is a target, nothing is left to be inferred
        whole_rows = whole_rows or set(groups) <= set(targets)
        rest = None if whole_rows else self._largest_unread(targets)
        mass = torch.zeros(*shape, len(groups), device=self.query.device)
        score = {t: torch.zeros(*shape, _size(self.layout, t), device=mass.device) for t in targets}
        entropy = {t: torch.zeros(shape, device=mass.device) for t in targets}
        error = 0.0
        for start in range(span.start, span.stop, chunk):
            rows = slice(start, min(start + chunk, span.stop))
            total = torch.zeros((), device=self.query.device)
            for name, place in columns.items():
                if name == rest or place.start == place.stop:
                    continue
                log_probability = self.log_probabilities(rows, place)
                probability = log_probability.exp()
                row_mass = probability.sum(-1)
                if name in groups:
                    mass[..., groups.index(name)] += row_mass.sum(-1)
                    total = total + row_mass
                if name in targets:
                    score[name] += probability.sum(-2)
                    surprise = log_probability.mul_(probability).sum(-1)
                    entropy[name] += row_entropy(surprise, row_mass).sum(-1)
            if whole_rows:
                error = max(error, distance_from_one(total))
        mass /= count
        if rest is not None:
            mass[..., groups.index(rest)] = 1 - mass.sum(-1)
            picks = torch.linspace(span.start, span.stop - 1, min(verify_rows, count)).long()
            rows_sum = self.log_probabilities(picks, slice(None)).exp().sum(-1)
            error = distance_from_one(rows_sum)
        statistics = {
            t: PairStatistics(score[t] / count, entropy_bits(score[t]), entropy[t] / count)
            for t in targets
        }
        return mass, statistics, error

    def _largest_unread(self, targets: Sequence[str]) -> str:
        """The widest group that no statistics are asked of: its mass is what is left of 1."""
        free = [name for name in self.layout.groups if name not in targets]
        return max(free, key=lambda name: _size(self.layout, name))


def _size(layout: TokenLayout, group: str) -> int:
    span = layout.span(group)
    return span.stop - span.start


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: TokenLayout,
    pairs: Sequence[tuple[str, str]],
    mass_table: str,
    chunk: int | None,
    heads: Sequence[int] | None,
) -> None:
    if query.ndim != 4 or key.shape != query.shape or value.shape != query.shape:
        raise InputError(
            "query, key and value must share one shape (batch, sequence, head, dim), got "
            f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}."
        )
    if query.shape[1] != layout.total:
        raise InputError(
            f"The layout has {layout.total} tokens but the sequence has {query.shape[1]}."
        )
    if mass_table not in ("all", "queried"):
        raise InputError(f'mass_table is "all" or "queried", not {mass_table!r}.')
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk must be at least 1 row, got {chunk}.")
    for source, target in pairs:
        if source not in layout.groups:
            raise InputError(f"Queries are read by {', '.join(layout.groups)}, not {source!r}.")
        if not _size(layout, source) or not _size(layout, target):
            raise InputError(f"The pair {source} to {target} has no tokens in this layout.")
    if heads is not None:
        count = query.shape[2]
        wrong = [head for head in heads if not 0 <= head < count]
        if wrong or not len(heads):
            raise InputError(f"heads must name some of 0..{count - 1}, got {list(heads)}.")
