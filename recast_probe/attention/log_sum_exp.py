"""Attention's output and row log-sum-exp from the very kernel that PyTorch would have used."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend

from recast_probe.attention.autocast import outside_autocast

ROWS_AT_A_TIME = 256


class AttentionResult(NamedTuple):
    """`output` (batch, sequence, head, dim); `log_sum_exp` float32 (batch, head, query), natural
    logarithm of each row's softmax denominator; `backend`, the kernel's name."""

    output: Tensor
    log_sum_exp: Tensor
    backend: str


@outside_autocast
def attention_with_log_sum_exp(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None = None
) -> AttentionResult:
    """Unmasked attention, bit-identical to `scaled_dot_product_attention` on these inputs.

    PyTorch is asked which kernel it would choose, and that kernel's own variant with statistics
    is called. Where the choice has none (the unfused math path), the output comes from PyTorch
    and the log-sum-exp from a pass over the keys in chunks of rows.

    Args:
        query, key, value: (batch, sequence, head, dim), as diffusers hands them to attention.
        scale: factor on the scores; 1 / sqrt(dim) by default.

    Returns:
        Output (batch, sequence, head, dim), log-sum-exp float32 (batch, head, query) and the
        kernel.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> q, k, v = (torch.randn(1, 11, 2, 8, generator=generator) for _ in range(3))
        >>> found = attention_with_log_sum_exp(q, k, v)
        >>> scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5
        >>> bool(torch.allclose(found.log_sum_exp, scores.logsumexp(-1), atol=1e-5))
        True
    """
    q, k, v = (tensor.permute(0, 2, 1, 3) for tensor in (query, key, value))
    # a scale of None goes through as None: a default worked out here can differ in the last bit
    choice = torch._fused_sdp_choice(q, k, v, scale=scale)
    if choice == SDPBackend.FLASH_ATTENTION.value and q.device.type == "cpu":
        output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, scale=scale
        )
        backend = "cpu flash"
    elif choice == SDPBackend.FLASH_ATTENTION.value and q.device.type == "cuda":
        output, lse = _cuda_flash(q, k, v, scale)
        backend = "cuda flash"
    elif choice == SDPBackend.EFFICIENT_ATTENTION.value and q.device.type == "cuda":
        output, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
            q, k, v, None, compute_log_sumexp=True, scale=scale
        )
        backend = "cuda memory-efficient"
    elif choice == SDPBackend.CUDNN_ATTENTION.value and q.device.type == "cuda":
        output, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
            q, k, v, None, compute_log_sumexp=True, scale=scale
        )
        backend = "cudnn"
    else:
        output = functional.scaled_dot_product_attention(q, k, v, scale=scale)
        lse = streamed_log_sum_exp(q, k, default_scale(query) if scale is None else scale)
        backend = f"{q.device.type} {SDPBackend(choice).name.lower()}, log-sum-exp in chunks"
    # kernels pad the query axis or add a unit axis; the order of the leading axes is the same
    lse = lse.reshape(*q.shape[:2], -1)[..., : q.shape[2]].float()
    return AttentionResult(output.permute(0, 2, 1, 3), lse, backend)


def default_scale(query: Tensor) -> float:
    """1 / sqrt(dim), rounded as PyTorch rounds it."""
    return 1 / math.sqrt(query.shape[-1])


def streamed_log_sum_exp(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Row log-sum-exp (batch, head, query) in chunks of rows; inputs (batch, head, token, dim)."""
    keys = at_least_float32(key).transpose(-1, -2)
    parts = [
        (at_least_float32(rows) @ keys).mul_(scale).logsumexp(-1)
        for rows in query.split(ROWS_AT_A_TIME, dim=2)
    ]
    return torch.cat(parts, dim=-1)


def _cuda_flash(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    # flash attention on CUDA takes head sizes in multiples of 8; PyTorch pads with zeros as well
    width = q.shape[-1]
    if width % 8:
        scale = 1 / math.sqrt(width) if scale is None else scale
        q, k, v = (functional.pad(tensor, (0, 8 - width % 8)) for tensor in (q, k, v))
    output, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, scale=scale)
    return output[..., :width], lse


def at_least_float32(tensor: Tensor) -> Tensor:
    """At least float32: half-precision inputs are multiplied and summed in float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
