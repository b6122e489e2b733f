"""Heads in which rounding could spoil a score, read again in double precision.

Scores of a head are to be right within `EXACT` of their sum. Two things can be in the way. Large
logits are rounded, in float32, by more than that. And PyTorch's half-precision kernel on CPUs takes
a fast exponential, so its row log-sum-exp misses by up to `KERNEL_ERROR`. An error of a probability
spoils a score by no more than its own share of the sum, so heads that spread their attention are
right all the same; only the others are read again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from recast_probe.attention.log_sum_exp import AttentionResult
from recast_probe.attention.sums import CHUNK_BYTES, HALF

EXACT = 1e-5
KERNEL_ERROR = 1e-4  # 8.8e-5 was seen in PyTorch 2.13, of 512 keys with logits from 0 to -12
# of a logit in float32, of the largest that the lengths of query and key allow
ROUNDING = 2.0**-22

Hide = Callable[[Tensor, slice, int], Tensor]


def kernel_error(result: AttentionResult) -> float:
    """How far a log-sum-exp lies from that of the kernel's own logits, at most."""
    half = result.output.dtype in HALF
    return KERNEL_ERROR if half and result.output.device.type == "cpu" else 0.0


def exact_in_every_head(
    column_sum: Tensor,
    query: Tensor,
    key: Tensor,
    columns: slice,
    scale: float,
    error: float,
    hide: Hide | None = None,
) -> None:
    """Make the sums over rows again in doubtful heads, in place.

    Args:
        column_sum: (batch, head, column), sums of probabilities over the rows.
        query: (batch, row, head, dim).
        key: (batch, key, head, dim), all keys of the softmax.
        columns: the keys that the sums are of.
        scale: factor on the scores.
        error: largest relative error of a probability that is known beside rounding.
        hide: given log-probabilities (1, 1, row, key) of one head, which rows and which head,
            takes out what is not seen, in place.
    """
    if query.dtype == torch.float64:
        return
    total = column_sum.sum(-1)
    share = column_sum.amax(-1) / total
    lengths = (torch.linalg.vector_norm(each, dim=-1).amax(1).float() for each in (query, key))
    largest = scale * next(lengths) * next(lengths)
    # written so that what is not a number is doubtful: float16 does not hold every logit
    doubtful = ~(share * (error + ROUNDING * largest) <= EXACT)
    if hide is not None:
        doubtful &= total != 0  # nothing of these keys is seen
    for item, head in doubtful.nonzero().tolist():
        own = None if hide is None else (lambda each, rows, head=head: hide(each, rows, head))
        again = _again(query[item, :, head], key[item, :, head], columns, scale, own)
        column_sum[item, head] = again.to(column_sum)


def _again(
    query: Tensor,
    key: Tensor,
    columns: slice,
    scale: float,
    hide: Callable[[Tensor, slice], Tensor] | None,
) -> Tensor:
    """Sums (column,) of one head (row, dim) and (key, dim), by a float64 softmax over all keys."""
    if query.device.type == "mps":  # has no float64
        query, key = query.cpu(), key.cpu()
    query, keys = query.double(), key.double().T
    found = query.new_zeros(keys[:, columns].shape[1])
    chunk = max(1, CHUNK_BYTES // (2 * 8 * keys.shape[1]))
    for start in range(0, len(query), chunk):
        rows = slice(start, start + chunk)
        logits = (query[rows] @ keys).mul_(scale)
        if hide is not None:
            # what is seen at 0 or above, and cut keys so far below that they get exactly 0
            hide(logits.sub_(logits.amin(-1, keepdim=True))[None, None], rows)
        found += logits.softmax(-1)[:, columns].sum(0)
    return found
