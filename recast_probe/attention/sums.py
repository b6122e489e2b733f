"""Sums over rows and columns of attention probabilities that are never held as a whole.

On CUDA a Triton kernel makes them (see `triton_sums`), anywhere else PyTorch a tile at a time. Sums
over rows alone come from a fused attention call (see `fused_sums`) where that is faster.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from recast_probe._utils.compat import has_matrix_tiles
from recast_probe._utils.optional import OPTIONAL, is_installed
from recast_probe.attention.fused_sums import fused_column_sums
from recast_probe.attention.log_sum_exp import at_least_float32
from recast_probe.attention.sum_types import PairSums

CHUNK_BYTES = 32 * 2**20
# a tile of probabilities and what they are multiplied with stay in a processor's second cache, of
# which most have 1 or 2 MiB a core
TILE_ROWS, TILE_COLUMNS = 256, 1024
TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
HALF = (torch.bfloat16, torch.float16)


def pair_sums(
    query: Tensor,
    key: Tensor,
    log_sum_exp: Tensor,
    scale: float,
    *,
    scored: bool = True,
    by_row: bool = True,
    chunk: int | None = None,
) -> PairSums:
    """Sums over exp(scale * query key^T - log_sum_exp).

    Args:
        query: (batch, row, head, dim).
        key: (batch, column, head, dim).
        log_sum_exp: float32 (batch, head, row), natural logarithm.
        scored: sum over rows, and p ln p, as well.
        by_row: sum over columns; without, nothing but the sums over rows is needed.
        chunk: rows at a time where PyTorch makes the sums; see `chunked_sums`.
    """
    if reader(query.device, query.dtype) == "triton":
        sums = _by_triton(query, key, log_sum_exp, scale, scored)
        if sums is not None:
            return sums
    if not by_row and fused_is_faster(query.device, query.dtype):
        return PairSums(None, None, fused_column_sums(query, key, log_sum_exp, scale))
    return chunked_sums(query, key, log_sum_exp, scale, scored=scored, by_row=by_row, chunk=chunk)


def reader(device: torch.device, dtype: torch.dtype) -> str:
    """Who makes the sums for such tensors: "triton" or "torch".

    Warns once where a CUDA device has to do without Triton.
    """
    if device.type != "cuda" or dtype not in TRITON_DTYPES or _Refused.reason is not None:
        return "torch"
    if not _has_triton():
        _Refused.because(f"Triton is not installed ({OPTIONAL['triton'].how_to_get})")
        return "torch"
    return "triton"


def fused_is_faster(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether PyTorch makes sums over rows faster by a fused attention call than tile by tile.

    The call multiplies the probabilities with values that nobody needs. It pays where half
    precision is multiplied much faster than float32: on CUDA, and in a processor's matrix tiles.
    """
    if dtype not in HALF:
        return False
    return device.type == "cuda" or (device.type == "cpu" and has_matrix_tiles(dtype))


def chunked_sums(
    query: Tensor,
    key: Tensor,
    log_sum_exp: Tensor,
    scale: float,
    *,
    scored: bool = True,
    by_row: bool = True,
    chunk: int | None = None,
    hide: Callable[[Tensor, slice], Tensor] | None = None,
) -> PairSums:
    """`pair_sums` in PyTorch, a tile at a time in buffers that are used again, on any device.

    Args:
        chunk: rows at a time; by default a tile takes about 1 MiB on a CPU, 32 MiB elsewhere.
        hide: given log-probabilities (batch, head, row, column) of all heads and columns, and which
            of the rows they are, takes out what those rows do not see, in place.
    """
    batch, rows, heads, _ = query.shape
    columns = key.shape[1]
    exact = at_least_float32(query[:0]).dtype
    # one place for all tiles: small results left among freed large ones would fragment the memory
    empty = query.new_zeros(0, dtype=exact)
    row_mass = empty.new_zeros(batch, heads, rows) if by_row else None
    row_surprise = empty.new_zeros(batch, heads, rows) if scored and by_row else None
    column_sum = torch.zeros(batch, heads, columns, device=query.device) if scored else None
    buffers = 1 if row_surprise is None else 2
    shape = _tile(query, columns, chunk, buffers, whole=hide is not None)
    space = empty.new_empty(buffers, math.prod(shape))
    # powers of 2 are faster made than those of e
    factor, offset = scale / math.log(2), log_sum_exp.to(exact) / -math.log(2)
    places = list(_slices(columns, shape[2]))
    views: dict[tuple[int, ...], list[Tensor]] = {}
    for item, some in _each(batch, heads, shape[0]):
        keys = at_least_float32(key[item, :, some].contiguous()).permute(1, 2, 0)
        tiles = [(keys[:, :, at], _part(column_sum, (item, some, at))) for at in places]
        for part in _slices(rows, shape[1]):
            queries = at_least_float32(query[item, part, some].contiguous()).transpose(0, 1)
            start = offset[item, some, part, None]
            masses = _part(row_mass, (item, some, part))
            surprises = _part(row_surprise, (item, some, part))
            for some_keys, sums in tiles:
                size = (*queries.shape[:2], some_keys.shape[2])
                if size not in views:
                    views[size] = [each[: math.prod(size)].view(size) for each in space]
                logarithm, probability = views[size][0], views[size][-1]
                torch.baddbmm(start.expand(size), queries, some_keys, alpha=factor, out=logarithm)
                if hide is not None:
                    hide(logarithm[None], part)
                torch.exp2(logarithm, out=probability)
                if sums is not None:
                    sums.add_(probability.sum(-2))
                if masses is not None:
                    masses.add_(probability.sum(-1))
                if surprises is not None:
                    surprises.add_(logarithm.mul_(probability).sum(-1))
    if row_surprise is not None:
        row_surprise *= math.log(2)
    return PairSums(row_mass, row_surprise, column_sum)


def _part(sums: Tensor | None, place: tuple[int | slice, ...]) -> Tensor | None:
    return None if sums is None else sums[place]


def _tile(
    query: Tensor, columns: int, chunk: int | None, buffers: int, whole: bool
) -> tuple[int, int, int]:
    """Heads, rows and columns of a tile in so many buffers; `whole` has all heads and columns."""
    _, rows, heads, _ = query.shape
    if whole:
        return heads, min(rows, chunk or rows_at_a_time(query, columns)), columns
    most = TILE_ROWS * TILE_COLUMNS // buffers
    if query.device.type != "cpu":
        most = CHUNK_BYTES // 8
    wide = max(1, min(columns, TILE_COLUMNS // buffers))
    high = max(1, min(rows, chunk or most // wide))
    return max(1, min(heads, most // (wide * high))), high, wide


def _slices(count: int, size: int) -> Iterator[slice]:
    """One after the other, of at most `size`."""
    for start in range(0, count, max(1, size)):
        yield slice(start, min(count, start + max(1, size)))


def _each(batch: int, heads: int, together: int) -> Iterator[tuple[int, slice]]:
    """Items of a batch, with some of their heads at a time."""
    for item in range(batch):
        for some in _slices(heads, together):
            yield item, some


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
