"""Exact attention statistics, streamed: never a matrix of sequence x sequence.

With the row log-sum-exp of the fused kernel, exp(scale * q k^T - lse) is the exact attention
probability; `sums` reduces it as it is made. Where rounding could spoil a score, `exact_heads`
reads the head again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from recast_probe._utils.checks import check_indices
from recast_probe.attention.autocast import outside_autocast
from recast_probe.attention.cuts import HIDDEN, HiddenKeys, attention_with_cuts, effective_cuts
from recast_probe.attention.exact_heads import exact_in_every_head, kernel_error
from recast_probe.attention.inputs import Cut
from recast_probe.attention.log_sum_exp import attention_with_log_sum_exp, default_scale
from recast_probe.attention.rows import distance_from_one, pair_entropies
from recast_probe.attention.sums import (
    PairSums,
    chunked_sums,
    log_probabilities,
    pair_sums,
)
from recast_probe.errors import InputError, VerificationError
from recast_probe.layout import TokenLayout

GENERATION_TO_REFERENCE = (("generation", "reference"),)
MASS_TABLES = ("all", "queried", "scores")


@dataclass(frozen=True)
class PairStatistics:
    """How the queries of one token group attend to the keys of another.

    Attributes:
        score: float32 (batch, head, key); Eq. 2: mean over the queries of the probability on
            each key. Sums over keys to the pair's mass, of which no score misses more than 1e-5.
        marginal_entropy: float32 (batch, head), bits; entropy of the normalised score; NaN where
            no query sees the key group.
        conditional_entropy: float32 (batch, head), bits; mean over queries of the entropy of
            that query's distribution over the key group, normalised.
        mass_weighted_conditional_entropy: the same, each query weighted by its mass on the key
            group. ``marginal_entropy`` minus this is the mutual information of query and key,
            given that attention lands on the group.

    Entropies are NaN where scores alone were read.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> q, k, v = (torch.randn(1, 11, 2, 8, generator=generator) for _ in range(3))
        >>> layout = rp.TokenLayout(3, rp.Grid(2, 2), (rp.Grid(2, 2),))
        >>> found = attend(q, k, v, layout).pairs["generation", "reference"]
        >>> tuple(found.score.shape), tuple(found.conditional_entropy.shape)
        ((1, 2, 4), (1, 2))
    """

    score: Tensor
    marginal_entropy: Tensor
    conditional_entropy: Tensor
    mass_weighted_conditional_entropy: Tensor


@dataclass(frozen=True)
class Readout:
    """Attention's output with its statistics.

    Attributes:
        output: (batch, sequence, head, dim), bit-identical to plain attention.
        pairs: statistics by (query group, key group).
        mass: float32 (batch, head, query group, key group); mean share of attention that each
            group gives each group; rows sum to 1. NaN where it was not read.
        groups: names along the last two axes of `mass`.
        row_sum_error: largest distance from 1 of a checked row's sum of probabilities.
        backend: the attention kernel used.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> q, k, v = (torch.randn(1, 11, 2, 8, generator=generator) for _ in range(3))
        >>> layout = rp.TokenLayout(3, rp.Grid(2, 2), (rp.Grid(2, 2),))
        >>> readout = attend(q, k, v, layout)
        >>> readout.groups, tuple(readout.mass.shape)
        (('text', 'generation', 'reference'), (1, 2, 3, 3))
    """

    output: Tensor
    pairs: dict[tuple[str, str], PairStatistics]
    mass: Tensor
    groups: tuple[str, ...]
    row_sum_error: float
    backend: str


@outside_autocast
def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: TokenLayout,
    *,
    pairs: Sequence[tuple[str, str]] = GENERATION_TO_REFERENCE,
    mass_table: Literal["all", "queried", "scores"] = "all",
    chunk: int | None = None,
    scale: float | None = None,
    heads: Sequence[int] | None = None,
    cuts: Sequence[Cut] = (),
    unread: Sequence[str] = (),
    verify_rows: int = 8,
    row_sum_tolerance: float = 1e-3,
) -> Readout:
    """Compute attention and, from the same numbers, who attends to whom (Eq. 2).

    Under cuts, output and statistics are those of the cut attention. Keys that are left out of the
    softmax ("renormalised") have probability 0 and the rest shares the whole mass. Keys whose value
    is zeroed keep their probability: the mass table says where attention goes, not what it brings.

    Args:
        query, key, value: (batch, sequence, head, dim), sequence as `layout` says. The queries of
            the reference tokens, which come last, may be missing.
        layout: the token groups.
        pairs: (query group, key group) pairs to score; the default is Eq. 2's.
        mass_table: "all" reads every query row; "queried" only those of the groups in `pairs`;
            "scores" nothing but the scores and the masses that they sum to, and no entropies.
        chunk: query rows at a time where PyTorch reads them. The default keeps the extra memory
            below 16 MiB on a CPU and near 64 MiB elsewhere. On CUDA with Triton it is not used; see
            `triton_sums`.
        scale: factor on the scores; 1 / sqrt(dim) by default.
        heads: statistics for these heads only, in this order; the output has all of them.
        cuts: keys that some queries do not see.
        unread: token groups whose queries are not the model's, and of which nothing is read.
        verify_rows: rows per query group whose sum over all keys is checked ("queried" and
            "scores" only; with "all" every row is).
        row_sum_tolerance: the largest accepted distance of such a sum from 1.

    Raises:
        InputError: shapes, layout, heads, groups or cuts that do not fit, or statistics of queries
            that see no key at all.
        VerificationError: probabilities do not sum to 1: the log-sum-exp is not this attention's.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> q, k, v = (torch.randn(1, 11, 2, 8, generator=generator) for _ in range(3))
        >>> layout = rp.TokenLayout(3, rp.Grid(2, 2), (rp.Grid(2, 2),))
        >>> found = attend(q, k, v, layout)
        >>> score = found.pairs["generation", "reference"].score
        >>> bool(torch.allclose(score.sum(-1), found.mass[:, :, 1, 2]))
        True
    """
    _check(query, key, value, layout, pairs, mass_table, chunk, heads)
    cuts = effective_cuts(cuts, query.shape[1], key.shape[1], query.shape[2])
    if cuts:
        result = attention_with_cuts(query, key, value, cuts, scale)
    else:
        result = attention_with_log_sum_exp(query, key, value, scale)
    if scale is None:
        scale = default_scale(query)
    read = range(query.shape[2]) if heads is None else list(heads)
    hidden = HiddenKeys(cuts, query.shape[1], key.shape[1], read, query.device) if cuts else None
    lse = result.log_sum_exp
    if heads is not None:
        index = torch.as_tensor(list(heads), device=query.device)
        query, key, lse = query[:, :, index], key[:, :, index], lse[:, index]
    error = kernel_error(result)
    stream = _Stream(query, key, lse, scale, layout, chunk, hidden, error)
    queried = {source for source, _ in pairs}
    wanted = [
        group
        for group in layout.groups
        if (mass_table == "all" or group in queried)
        and group not in unread
        and _size(layout, group)
        and layout.span(group).stop <= query.shape[1]
    ]
    found: dict[tuple[str, str], PairStatistics] = {}
    mass = torch.full(
        (*lse.shape[:2], len(layout.groups), len(layout.groups)), math.nan, device=query.device
    )
    worst = 0.0
    for group in wanted:
        targets = [target for source, target in pairs if source == group]
        row, statistics, error = stream.read(
            group, targets, mass_table=mass_table, verify_rows=verify_rows
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
    """One attention call, read group by group; no probability is kept."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        lse: Tensor,
        scale: float,
        layout: TokenLayout,
        chunk: int | None,
        hidden: HiddenKeys | None,
        error: float,
    ) -> None:
        # query and key (batch, token, head, dim), lse (batch, head, token)
        self.query, self.key, self.lse, self.scale = query, key, lse, scale
        self.layout, self.chunk, self.hidden, self.error = layout, chunk, hidden, error

    def masses(self, rows: slice | Tensor, columns: slice) -> Tensor:
        """Mass (batch, head, row) of these rows on these columns."""
        found = self._sums(rows, columns, scored=False).row_mass
        assert found is not None
        return found

    def scored(self, rows: slice, columns: slice, by_row: bool) -> PairSums:
        """Sums over the probabilities of these rows and columns, right in every head."""
        # a fused call that makes the sums over rows has the kernel's error once more
        error = self.error if by_row else 2 * self.error
        sums = self._sums(rows, columns, by_row=by_row)
        assert sums.column_sum is not None
        hidden, hide = self.hidden, None
        if hidden is not None:
            places = torch.arange(self.query.shape[1], device=self.query.device)[rows]

            def hide(scores: Tensor, part: slice, head: int) -> Tensor:
                return hidden.hide(scores, places[part], slice(None), head)

        exact_in_every_head(
            sums.column_sum, self.query[:, rows], self.key, columns, self.scale, error, hide
        )
        return sums

    def _sums(
        self, rows: slice | Tensor, columns: slice, *, scored: bool = True, by_row: bool = True
    ) -> PairSums:
        inputs = (self.query[:, rows], self.key[:, columns], self.lse[..., rows], self.scale)
        if self.hidden is None:
            return pair_sums(*inputs, scored=scored, by_row=by_row, chunk=self.chunk)
        places = torch.arange(self.query.shape[1], device=self.query.device)[rows]
        hidden = self.hidden
        return chunked_sums(
            *inputs,
            scored=scored,
            by_row=by_row,
            chunk=self.chunk,
            hide=lambda scores, part: hidden.hide(scores, places[part], columns),
        )

    def log_probabilities(self, span: slice, columns: slice, rows: Tensor) -> Tensor:
        """Logarithms (batch, head, row, column) of some rows of a span, counted within it."""
        places = rows + span.start
        inputs = (self.query[:, places], self.key[:, columns], self.lse[..., places], self.scale)
        found = log_probabilities(*inputs)
        if self.hidden is None:
            return found
        found = self.hidden.hide(found, places, columns)
        return found.masked_fill_(found <= HIDDEN, -math.inf)

    def read(
        self, group: str, targets: Sequence[str], *, mass_table: str, verify_rows: int
    ) -> tuple[Tensor, dict[str, PairStatistics], float]:
        """Row of the mass table (batch, head, key group), statistics by target, row-sum error."""
        span, groups = self.layout.span(group), self.layout.groups
        if self.hidden is not None and self.lse[:, :, span].isneginf().any():
            raise InputError(
                f"Some {group} tokens see no key at all, so their attention is no distribution and "
                "cannot be recorded; cut less, or record nothing there."
            )
        if mass_table == "scores":
            return self._scores(span, targets, verify_rows)
        count = span.stop - span.start
        columns = {name: self.layout.span(name) for name in dict.fromkeys((*groups, *targets))}
        # where every group is a target, nothing is left to be inferred
        whole_rows = mass_table == "all" or set(groups) <= set(targets)
        rest = None if whole_rows else self._largest_unread(targets)
        masses: dict[str, Tensor] = {}
        statistics = {}
        for name, place in columns.items():
            if name == rest or place.start == place.stop:
                continue
            if name not in targets:
                masses[name] = self.masses(span, place)
                continue
            sums = self.scored(span, place, by_row=True)
            assert sums.row_mass is not None
            assert sums.column_sum is not None
            if name in groups:
                masses[name] = sums.row_mass
            entropies = pair_entropies(sums, partial(self.log_probabilities, span, place))
            statistics[name] = PairStatistics(sums.column_sum / count, *entropies)
        row = torch.zeros(*self.lse.shape[:2], len(groups), device=self.query.device)
        if rest is None:
            total = torch.stack(list(masses.values())).sum(0)
            # what a kernel's log-sum-exp is off by cancels
            masses = {name: each / total for name, each in masses.items()}
        for name, each in masses.items():
            row[..., groups.index(name)] = each.sum(-1) / count
        if rest is None:
            return row, statistics, distance_from_one(total)
        row[..., groups.index(rest)] = 1 - row.sum(-1)
        return row, statistics, self._verified(span, verify_rows)

    def _scores(
        self, span: slice, targets: Sequence[str], verify_rows: int
    ) -> tuple[Tensor, dict[str, PairStatistics], float]:
        """What `read` gives of scores alone."""
        groups = self.layout.groups
        unknown = torch.full(self.lse.shape[:2], math.nan, device=self.query.device)
        row = unknown[..., None].repeat(1, 1, len(groups))
        statistics = {}
        for name in targets:
            sums = self.scored(span, self.layout.span(name), by_row=False)
            assert sums.column_sum is not None
            score = sums.column_sum / (span.stop - span.start)
            statistics[name] = PairStatistics(score, unknown, unknown, unknown)
            if name in groups:
                row[..., groups.index(name)] = score.sum(-1)
        return row, statistics, self._verified(span, verify_rows)

    def _verified(self, span: slice, count: int) -> float:
        """Distance from 1 of the sum over all keys, in a few rows of a span."""
        picks = torch.linspace(span.start, span.stop - 1, min(count, span.stop - span.start)).long()
        return distance_from_one(self.masses(picks.to(self.query.device), slice(None)))

    def _largest_unread(self, targets: Sequence[str]) -> str:
        """The widest group that no statistics are asked of: its mass is what is left of 1."""
        free = [name for name in self.layout.groups if name not in targets]
        return max(free, key=lambda name: _size(self.layout, name))


def _but_tokens(tensor: Tensor) -> tuple[int, ...]:
    return (tensor.shape[0], *tensor.shape[2:])


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
    if query.ndim != 4 or key.shape != value.shape or _but_tokens(query) != _but_tokens(key):
        raise InputError(
            "query, key and value must share one shape (batch, sequence, head, dim), got "
            f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}."
        )
    if key.shape[1] != layout.total:
        raise InputError(
            f"The layout has {layout.total} tokens but the sequence has {key.shape[1]}."
        )
    computed = layout.total - layout.reference_tokens
    if query.shape[1] not in (layout.total, computed):
        raise InputError(
            f"There are {query.shape[1]} queries, but the layout has {layout.total} tokens, "
            f"{computed} of them before the reference."
        )
    if mass_table not in MASS_TABLES:
        raise InputError(f"mass_table is one of {', '.join(MASS_TABLES)}, not {mass_table!r}.")
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk must be at least 1 row, got {chunk}.")
    for source, target in pairs:
        if source not in layout.groups:
            raise InputError(f"Queries are read by {', '.join(layout.groups)}, not {source!r}.")
        if not _size(layout, source) or not _size(layout, target):
            raise InputError(f"The pair {source} to {target} has no tokens in this layout.")
        if layout.span(source).stop > query.shape[1]:
            raise InputError(
                f"Attention of {source} tokens cannot be read where they are not computed, as in a "
                "step that takes their keys and values from an earlier one."
            )
    if heads is not None:
        check_indices("heads", heads, query.shape[2])
