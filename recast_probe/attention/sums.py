"""Sums over rows and columns of attention probabilities that are never held as a whole.

On CUDA a Triton kernel makes them (see `triton_sums`), anywhere else PyTorch a few rows at a time.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from recast_probe._utils.optional import is_installed
from recast_probe.attention.log_sum_exp import at_least_float32
from recast_probe.attention.sum_types import PairSums

CHUNK_BYTES = 32 * 2**20
TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def pair_sums(
    query: Tensor,
    key: Tensor,
    log_sum_exp: Tensor,
    scale: float,
    *,
    scored: bool = True,
    chunk: int | None = None,
) -> PairSums:
    """Sums over exp(scale * query key^T - log_sum_exp).

    Args:
        query: (batch, row, head, dim).
        key: (batch, column, head, dim).
        log_sum_exp: float32 (batch, head, row), natural logarithm.
        scored: sum over rows, and p ln p, as well.
        chunk: rows at a time where PyTorch makes the sums; by default as many as fit in 32 MiB.
    """
    if reader(query.device, query.dtype) == "triton":
        sums = _by_triton(query, key, log_sum_exp, scale, scored)
        if sums is not None:
            return sums
    return chunked_sums(query, key, log_sum_exp, scale, scored=scored, chunk=chunk)


def reader(device: torch.device, dtype: torch.dtype) -> str:
    """Who makes the sums for such tensors: "triton" or "torch".

    Warns once where a CUDA device has to do without Triton.
    """
    if device.type != "cuda" or dtype not in TRITON_DTYPES or _Refused.reason is not None:
        return "torch"
    if not _has_triton():
        _Refused.because("Triton is not installed (pip install 'recast_probe[gpu]')")
        return "torch"
    return "triton"


def chunked_sums(
    query: Tensor,
    key: Tensor,
    log_sum_exp: Tensor,
    scale: float,
    *,
    scored: bool = True,
    chunk: int | None = None,
    hide: Callable[[Tensor, slice], Tensor] | None = None,
) -> PairSums:
    """`pair_sums` in PyTorch, a chunk of rows at a time, on any device.

    Args:
        hide: given log-probabilities (batch, head, row, column) and which of the rows they are,
            takes out what those rows do not see, in place.
    """
    rows, keys = query.permute(0, 2, 1, 3), at_least_float32(key).permute(0, 2, 3, 1)
    shape = rows.shape[:2]
    chunk = chunk or rows_at_a_time(query, key.shape[1])
    exact = at_least_float32(query[:0]).dtype
    # one place for all chunks: small results left among freed large ones would fragment the memory
    row_mass = torch.empty(*shape, query.shape[1], dtype=exact, device=query.device)
    row_surprise = torch.empty_like(row_mass) if scored else None
    column_sum = torch.zeros(*shape, key.shape[1], device=query.device) if scored else None
    for start in range(0, query.shape[1], chunk):
        part = slice(start, start + chunk)
        log_probability = at_least_float32(rows[:, :, part]) @ keys
        log_probability = log_probability.mul_(scale).sub_(log_sum_exp[..., part, None])
        if hide is not None:
            log_probability = hide(log_probability, part)
        probability = log_probability.exp()
        row_mass[..., part] = probability.sum(-1)
        if column_sum is not None and row_surprise is not None:
            column_sum += probability.sum(-2)
            row_surprise[..., part] = log_probability.mul_(probability).sum(-1)
        del log_probability, probability  # before the next are made
    return PairSums(row_mass, row_surprise, column_sum)


def log_probabilities(query: Tensor, key: Tensor, log_sum_exp: Tensor, scale: float) -> Tensor:
    """scale * query key^T - log_sum_exp, (batch, head, row, column), at least float32.

    Arguments as in `pair_sums`; all rows at once.
    """
    rows = at_least_float32(query.permute(0, 2, 1, 3))
    found = rows @ at_least_float32(key).permute(0, 2, 3, 1)
    return found.mul_(scale).sub_(log_sum_exp[..., None])


def rows_at_a_time(query: Tensor, columns: int) -> int:
    """Rows of (batch, row, head, dim) whose probabilities fit three times in `CHUNK_BYTES`."""
    return max(1, CHUNK_BYTES // (3 * 4 * query.shape[0] * query.shape[2] * max(1, columns)))


class _Refused:
    """Why Triton is not used in this process, said once."""

    reason: str | None = None

    @classmethod
    def because(cls, reason: str) -> None:
        cls.reason = reason
        warnings.warn(
            f"Attention is read by PyTorch in chunks, which is slower but as exact: {reason}.",
            stacklevel=4,
        )


@functools.cache
def _has_triton() -> bool:
    return is_installed("triton")


def _by_triton(
    query: Tensor, key: Tensor, log_sum_exp: Tensor, scale: float, scored: bool
) -> PairSums | None:
    """The kernel's sums; None, with one warning, where it cannot be built on this machine."""
    try:
        from recast_probe.attention.triton_sums import triton_sums

        return triton_sums(query, key, log_sum_exp, scale, scored=scored)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # no compiler, a GPU that this Triton does not know, ...
        first = (str(error).strip().splitlines() or [""])[0]
        _Refused.because(f"the Triton kernel failed with {type(error).__name__}: {first[:200]}")
        return None
