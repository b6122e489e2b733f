"""Masks by which a model leaves keys out of the softmax, the same for all queries of a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import torch
from torch import Tensor

from recast_probe.attention.inputs import AttentionInputs, Cut
from recast_probe.attention.readout import PairStatistics, Readout


def hidden_keys(mask: Tensor, batch: int, keys: int) -> Tensor | None:
    """Which keys a mask hides from every query, bool (batch, key).

    Args:
        mask: of an attention call, (batch or 1, 1, 1, key); bool, false where a key is hidden, or
            a number that is added to the logits: 0 or minus infinity.

    Returns:
        None where the mask says something else: it differs by head or query, or weighs keys.

    Examples:
        >>> import torch
        >>> hidden_keys(torch.tensor([[[[True, False]]]]), batch=2, keys=2).tolist()
        [[False, True], [False, True]]
        >>> hidden_keys(torch.tensor([[[[0.0, -0.5]]]]), batch=1, keys=2) is None
        True
    """
    while mask.ndim < 4:
        mask = mask[None]
    if mask.shape[1:] != (1, 1, keys) or mask.shape[0] not in (1, batch):
        return None
    if mask.dtype == torch.bool:
        hidden = ~mask
    else:
        hidden = mask == -torch.inf
        if not bool((hidden | (mask == 0)).all()):
            return None
    return hidden[:, 0, 0].expand(batch, keys)


def visible_parts(inputs: AttentionInputs) -> list[tuple[Tensor, AttentionInputs]]:
    """Rows of a batch that hide the same keys, each with their attention, in which these are cut.

    Returns:
        int64 (row,), and the call of these rows, for each pattern of hidden keys.
    """
    assert inputs.hidden is not None
    every = torch.arange(inputs.query.shape[1])
    patterns, which = inputs.hidden.cpu().unique(dim=0, return_inverse=True)
    found = []
    for number, pattern in enumerate(patterns):
        rows, keys = (which == number).nonzero()[:, 0], pattern.nonzero()[:, 0]
        query, key, value = (
            each.index_select(0, rows.to(each.device))
            for each in (inputs.query, inputs.key, inputs.value)
        )
        cuts = (*inputs.cuts, *([Cut(every, keys)] if len(keys) else []))
        part = replace(inputs, query=query, key=key, value=value, cuts=cuts, hidden=None)
        found.append((rows, part))
    return found


def without_hidden(read: Callable[[AttentionInputs], Readout], inputs: AttentionInputs) -> Readout:
    """What is read of attention whose hidden keys have probability 0.

    Args:
        read: reads attention without hidden keys, whose cuts count.
    """
    if inputs.hidden is None:
        return read(inputs)
    parts = visible_parts(inputs)
    order = torch.cat([rows for rows, _ in parts]).argsort()
    return _joined([read(part) for _, part in parts], order)


def _joined(found: list[Readout], order: Tensor) -> Readout:
    """Readouts of parts of a batch as one, its rows in this order of theirs."""

    def join(parts: list[Tensor]) -> Tensor:
        return torch.cat(parts).index_select(0, order.to(parts[0].device))

    first = found[0]
    if len(found) == 1:
        return first
    pairs = {
        name: PairStatistics(
            *(join([getattr(each.pairs[name], of.name) for each in found]) for of in fields(pair))
        )
        for name, pair in first.pairs.items()
    }
    return replace(
        first,
        output=join([each.output for each in found]),
        pairs=pairs,
        mass=join([each.mass for each in found]),
        row_sum_error=max(each.row_sum_error for each in found),
    )
