"""Attention in which some queries do not see some keys: exact, and without a mask.

Queries that see the same keys are computed together: the fused kernel gets their rows, their heads
and the keys that are left. Nothing of the size of queries x keys is ever made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from recast_probe.attention.inputs import Cut
from recast_probe.attention.log_sum_exp import AttentionResult, attention_with_log_sum_exp
from recast_probe.errors import InputError

REMOVALS = ("renormalised", "value-zeroed")
# its exponential is exactly 0, and so is its product with that: an infinity would give NaN
HIDDEN = -10_000.0


def attention_with_cuts(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cuts: Sequence[Cut],
    scale: float | None = None,
) -> AttentionResult:
    """Attention with cuts; where nothing is cut, bit-identical to attention without any.

    Queries and heads that no cut names come from one plain call of the kernel, so they do not
    change in the last bit. Every set of queries that see the same keys takes one call more, of
    their rows alone. A query whose keys are all cut has output 0 and log-sum-exp minus infinity.

    Args:
        query: (batch, query, head, dim).
        key, value: (batch, key, head, dim).
        cuts: what is left out. A key that one cut leaves out of the softmax and another gives no
            value is left out.
        scale: factor on the scores; 1 / sqrt(dim) by default.

    Returns:
        Output (batch, query, head, dim), log-sum-exp float32 (batch, head, query) and the kernel.

    Raises:
        InputError: a query, key or head that is not there, or an unknown removal.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> q, k, v = (torch.randn(1, 11, 2, 8, generator=generator) for _ in range(3))
        >>> cut = Cut(queries=torch.arange(3, 7), keys=torch.arange(7, 11))
        >>> found = attention_with_cuts(q, k, v, [cut])
        >>> plain = attention_with_cuts(q, k, v, []).output
        >>> bool((found.output[:, :3] == plain[:, :3]).all()), tuple(found.log_sum_exp.shape)
        (True, (1, 2, 11))
    """
    rows, heads, keys = query.shape[1], query.shape[2], key.shape[1]
    cuts = effective_cuts(cuts, rows, keys, heads)
    parts = list(_parts(cuts, rows, keys, heads)) if cuts else []
    if (
        sum(len(part_heads) * len(part_rows) for part_heads, part_rows, _, _ in parts)
        < heads * rows
    ):
        base = attention_with_log_sum_exp(query, key, value, scale)
        output, lse, backend = base
    else:
        output = value.new_empty((query.shape[0], rows, heads, value.shape[3]))
        lse = torch.empty((query.shape[0], heads, rows), device=query.device)
        backend = ""
    for part_heads, part_rows, hidden, zeroed in parts:
        own = _Selection(part_heads, part_rows, heads, query.device)
        if hidden.all():
            own.put(output, lse, 0.0, -math.inf)
            continue
        left = None if not hidden.any() else (~hidden).nonzero()[:, 0]
        part_key, part_value = own.keys(key, left), own.keys(value, left)
        if zeroed.any():
            without = (zeroed if left is None else zeroed[left]).to(value.device)
            part_value = part_value.masked_fill(without[None, :, None, None], 0)
        found = attention_with_log_sum_exp(own.queries(query), part_key, part_value, scale)
        own.put(output, lse, found.output, found.log_sum_exp)
        backend = backend or found.backend
    return AttentionResult(output, lse, backend or "nothing left to attend to")


def effective_cuts(cuts: Sequence[Cut], queries: int, keys: int, heads: int) -> tuple[Cut, ...]:
    """The cuts that cut something.

    Raises:
        InputError: a query, key or head that is not there, or an unknown removal.
    """
    for cut in cuts:
        if cut.removal not in REMOVALS:
            raise InputError(f"removal must be one of {REMOVALS}, not {cut.removal!r}.")
        for name, chosen, count in (
            ("queries", cut.queries, queries),
            ("keys", cut.keys, keys),
            ("heads", torch.as_tensor(list(cut.heads or ()), dtype=torch.int64), heads),
        ):
            if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < count:
                raise InputError(
                    f"A cut names {name} {int(chosen.min())} to {int(chosen.max())}, but this "
                    f"attention has 0 to {count - 1}."
                )
    return tuple(cut for cut in cuts if len(cut.queries) and len(cut.keys) and cut.heads != ())


class HiddenKeys:
    """Which probabilities are exactly 0 under cuts, for any rows and columns of the table.

    Value-zeroed keys keep their probability: they are attended to, and only their value is lost.

    Args:
        cuts: as ``effective_cuts`` left them.
        queries, keys: lengths of the two axes.
        heads: the heads of the table that is read, in its order.
        device: where the table is.
    """

    def __init__(
        self,
        cuts: Sequence[Cut],
        queries: int,
        keys: int,
        heads: Sequence[int],
        device: torch.device,
    ) -> None:
        self._cuts = []
        for cut in cuts:
            named = [i for i, head in enumerate(heads) if cut.heads is None or head in cut.heads]
            if cut.removal != "renormalised" or not named:
                continue
            chosen = None if len(named) == len(heads) else torch.as_tensor(named, device=device)
            rows, columns = _indicator(cut.queries, queries), _indicator(cut.keys, keys)
            self._cuts.append((rows.to(device), columns.to(device), chosen))

    def hide(
        self,
        log_probability: Tensor,
        rows: slice | Tensor,
        columns: slice,
        head: int | None = None,
    ) -> Tensor:
        """Give cut edges a log-probability whose exponential is 0, in place.

        Args:
            log_probability: (batch, head, row, column), of these rows and columns.
            head: the only head that it is of; None for all.
        """
        for row, column, heads in self._cuts:
            if head is not None and heads is not None and head not in heads:
                continue
            hidden = (row[rows][:, None] & column[columns][None]).to(log_probability.device)
            if heads is None or head is not None:
                log_probability.masked_fill_(hidden, HIDDEN)
            else:
                log_probability[:, heads] = log_probability[:, heads].masked_fill(hidden, HIDDEN)
        return log_probability


class _Selection:
    """Rows and heads of one part, taken out of whole tensors and put back."""

    def __init__(self, heads: Tensor, rows: Tensor, all_heads: int, device: torch.device) -> None:
        self.rows = rows.to(device)
        self.heads = None if len(heads) == all_heads else heads.to(device)

    def _of_heads(self, tensor: Tensor) -> Tensor:
        return tensor if self.heads is None else tensor.index_select(2, self.heads)

    def queries(self, query: Tensor) -> Tensor:
        return self._of_heads(query.index_select(1, self.rows))

    def keys(self, tensor: Tensor, left: Tensor | None) -> Tensor:
        if left is not None:
            tensor = tensor.index_select(1, left.to(tensor.device))
        return self._of_heads(tensor)

    def put(
        self, output: Tensor, lse: Tensor, found: Tensor | float, found_lse: Tensor | float
    ) -> None:
        if self.heads is None:
            output[:, self.rows] = found
            lse[:, :, self.rows] = found_lse
        else:
            output[:, self.rows[:, None], self.heads] = found
            lse[:, self.heads[:, None], self.rows] = found_lse


def _parts(
    cuts: Sequence[Cut], rows: int, keys: int, heads: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Heads and rows that the same cuts name, with bool (keys,): left out, and without value."""
    applies = torch.zeros(len(cuts), heads, rows, dtype=torch.bool)
    for index, cut in enumerate(cuts):
        named = torch.arange(heads) if cut.heads is None else torch.as_tensor(list(cut.heads))
        applies[index, named] = _indicator(cut.queries, rows)
    # each set of cuts gets a number, renumbered after every cut, so that the numbers stay small
    code = torch.zeros(heads, rows, dtype=torch.int64)
    for each in applies:
        code = (2 * code + each).unique(return_inverse=True)[1]
    for value in code.unique():
        # heads in which the same rows are cut alike are computed together
        patterns, pattern_of = (code == value).unique(dim=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            part_heads = (pattern_of == number).nonzero()[:, 0]
            part_rows = pattern.nonzero()[:, 0]
            if not len(part_rows):
                continue
            acts_here = applies[:, part_heads[0], part_rows[0]].tolist()
            acting = [cut for cut, acts in zip(cuts, acts_here, strict=True) if acts]
            if not acting:
                continue
            hidden, zeroed = torch.zeros(2, keys, dtype=torch.bool)
            for cut in acting:
                (hidden if cut.removal == "renormalised" else zeroed)[cut.keys.cpu()] = True
            yield part_heads, part_rows, hidden, zeroed & ~hidden


def _indicator(positions: Tensor, count: int) -> Tensor:
    found = torch.zeros(count, dtype=torch.bool)
    found[positions.cpu()] = True
    return found
