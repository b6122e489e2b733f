"""The attention of a few queries, row by row: exact, and only the rows that are asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from recast_probe.attention.autocast import outside_autocast
from recast_probe.attention.cuts import HiddenKeys, effective_cuts
from recast_probe.attention.inputs import AttentionInputs
from recast_probe.attention.key_mask import visible_parts
from recast_probe.attention.log_sum_exp import at_least_float32, default_scale
from recast_probe.attention.sums import CHUNK_BYTES


def query_rows(
    inputs: AttentionInputs, queries: Tensor, keys: Tensor, chunk: int | None = None
) -> Tensor:
    """Probabilities that some queries give some keys, in a softmax over all keys.

    Args:
        inputs: the attention call; its cuts and hidden keys count.
        queries, keys: int64 positions in the two sequences.
        chunk: queries at a time; by default the extra memory stays near 32 MiB.

    Returns:
        At least float32, (batch, head, query, key). A query that sees no key has zeros.
    """
    if inputs.hidden is not None:
        parts = visible_parts(inputs)
        found = torch.cat([query_rows(part, queries, keys, chunk) for _, part in parts])
        order = torch.cat([rows for rows, _ in parts]).argsort()
        return found.index_select(0, order.to(found.device))
    return _rows(inputs.query, inputs.key, inputs.value, inputs, queries, keys, chunk)


@outside_autocast
def _rows(
    query: Tensor,
    key: Tensor,
    _: Tensor,
    inputs: AttentionInputs,
    queries: Tensor,
    keys: Tensor,
    chunk: int | None,
) -> Tensor:
    scale = default_scale(query) if inputs.scale is None else inputs.scale
    query = query.permute(0, 2, 1, 3)
    all_keys = at_least_float32(key).permute(0, 2, 3, 1)
    device, count = query.device, all_keys.shape[-1]
    heads = query.shape[1]
    cuts = effective_cuts(inputs.cuts, query.shape[2], count, heads)
    hidden = HiddenKeys(cuts, query.shape[2], count, range(heads), device)
    queries, keys = queries.to(device), keys.to(device)
    chunk = chunk or max(1, CHUNK_BYTES // (3 * 4 * query.shape[0] * heads * count))
    parts = []
    for rows in queries.split(chunk):
        scores = (at_least_float32(query.index_select(2, rows)) @ all_keys).mul_(scale)
        if cuts:
            # everything visible at 0 or above, and cut keys so far below that they get exactly 0
            scores.sub_(scores.amin(-1, keepdim=True))
            blind = hidden.hide(scores, rows, slice(None)).amax(-1, keepdim=True) < 0
            probability = scores.softmax(-1).masked_fill(blind, 0)
        else:
            probability = scores.softmax(-1)
        parts.append(probability.index_select(3, keys))
    return torch.cat(parts, dim=2)
