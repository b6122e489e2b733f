"""Sums over rows of attention probabilities from a second call of the fused attention kernel.

The reference keys are its queries and the generation queries its keys. Minus the row log-sum-exp of
these comes in through further channels of the heads, so its own log-sum-exp is the logarithm of the
summed probabilities. Its output is of no use.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recast_probe.attention.log_sum_exp import attention_with_log_sum_exp

# a half-precision number has 8 or 11 bits, and a float32 log-sum-exp 24
PARTS = 3
# kernels take heads in multiples of 8
FURTHER = 8
OPERAND_BYTES = 16 * 2**20


def fused_column_sums(query: Tensor, key: Tensor, log_sum_exp: Tensor, scale: float) -> Tensor:
    """Sum over the rows of exp(scale * query key^T - log_sum_exp), float32 (batch, head, column).

    Args:
        query: (batch, row, head, dim).
        key: (batch, column, head, dim).
        log_sum_exp: float32 (batch, head, row), natural logarithm.
    """
    heads, each = query.shape[2], query[:, :, :1].numel() * query.element_size()
    together = max(1, OPERAND_BYTES // max(1, each))
    found = torch.empty(query.shape[0], heads, key.shape[1], device=query.device)
    for start in range(0, heads, together):
        some = slice(start, start + together)
        found[:, some] = _of_heads(query[:, :, some], key[:, :, some], log_sum_exp[:, some], scale)
    return found


def _of_heads(query: Tensor, key: Tensor, log_sum_exp: Tensor, scale: float) -> Tensor:
    keys = torch.cat([query, _split(log_sum_exp / -scale, query.dtype)], dim=-1)
    ones = key.new_zeros(*key.shape[:-1], FURTHER)
    ones[..., :PARTS] = 1
    queries = torch.cat([key, ones], dim=-1)
    return attention_with_log_sum_exp(queries, keys, keys, scale).log_sum_exp.exp()


def _split(number: Tensor, dtype: torch.dtype) -> Tensor:
    """Float32 numbers (batch, head, row) as parts that sum to them: (batch, row, head, channel)."""
    rest = number.float().transpose(1, 2)
    parts = torch.zeros(*rest.shape, FURTHER, dtype=dtype, device=rest.device)
    for place in range(PARTS):
        parts[..., place] = rest
        rest = rest - parts[..., place].float()
    return parts
