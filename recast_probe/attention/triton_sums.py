"""The readout as a Triton kernel: `sums.pair_sums` on a CUDA device.

A program owns one block of key columns of one head and walks over all query rows, so every column
is summed by one program in a fixed order. Row sums are written for each block of columns and added
by PyTorch afterwards. Nothing is added atomically: two runs give the same bits.

Half-precision products are exact and are summed in float32; float32 inputs are multiplied as such,
not in TF32.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from recast_probe.attention.sum_types import PairSums

LEAST_BLOCK = 16  # of a matrix product, along every axis


@triton.jit
def _sum_block(
    query,
    key,
    log_sum_exp,
    row_mass,
    row_surprise,
    column_sum,
    rows,
    columns,
    heads,
    width,
    scale,
    query_batch,
    query_row,
    query_head,
    query_dim,
    key_batch,
    key_column,
    key_head,
    key_dim,
    lse_batch,
    lse_head,
    lse_row,
    SCORED: tl.constexpr,  # noqa: N803
    PADDED_WIDTH: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
):
    """One block of columns of one head of one image; all rows."""
    blocks = tl.cdiv(columns, COLUMNS)
    program = tl.program_id(0).to(tl.int64)
    pair, block = program // blocks, program % blocks
    batch, head = pair // heads, pair % heads
    query += batch * query_batch + head * query_head
    key += batch * key_batch + head * key_head
    log_sum_exp += batch * lse_batch + head * lse_head
    row_mass += program * rows
    row_surprise += program * rows

    dim = tl.arange(0, PADDED_WIDTH)
    column = block * COLUMNS + tl.arange(0, COLUMNS)
    keys = tl.load(
        key + dim[:, None] * key_dim + column[None, :] * key_column,
        mask=(dim[:, None] < width) & (column[None, :] < columns),
        other=0.0,
    )
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(0, rows, ROWS):
        row = start + tl.arange(0, ROWS)
        queries = tl.load(
            query + row[:, None] * query_row + dim[None, :] * query_dim,
            mask=(row[:, None] < rows) & (dim[None, :] < width),
            other=0.0,
        )
        lse = tl.load(log_sum_exp + row * lse_row, mask=row < rows, other=0.0)
        logarithm = tl.dot(queries, keys, input_precision="ieee") * scale - lse[:, None]
        inside = (row[:, None] < rows) & (column[None, :] < columns)
        probability = tl.where(inside, tl.exp(logarithm), 0.0)
        tl.store(row_mass + row, tl.sum(probability, axis=1), mask=row < rows)
        if SCORED:
            total += probability
            surprise = tl.where(inside, probability * logarithm, 0.0)
            tl.store(row_surprise + row, tl.sum(surprise, axis=1), mask=row < rows)
    if SCORED:
        tl.store(column_sum + pair * columns + column, tl.sum(total, axis=0), mask=column < columns)


def triton_sums(
    query: Tensor, key: Tensor, log_sum_exp: Tensor, scale: float, *, scored: bool = True
) -> PairSums:
    """`pair_sums` by the kernel; float32, bfloat16 or float16, any head dim, rows and columns.

    Extra memory: 8 bytes (4 where not scored) * batch * heads * rows for every block of columns
    (see `blocks_for`).
    """
    batch, rows, heads, width = query.shape
    columns = key.shape[1]
    padded = max(LEAST_BLOCK, triton.next_power_of_2(width))
    row_block, column_block, warps = blocks_for(padded, query.element_size())
    blocks = triton.cdiv(columns, column_block)
    shape = (batch, heads, blocks, rows)
    mass = torch.empty(shape, dtype=torch.float32, device=query.device)
    surprise = torch.empty_like(mass) if scored else mass
    column_sum = torch.empty((batch, heads, columns), dtype=torch.float32, device=query.device)
    # Triton launches on the current device, which need not be the tensors'
    with torch.cuda.device(query.device) if query.is_cuda else nullcontext():
        _sum_block[(batch * heads * blocks,)](
            query,
            key,
            log_sum_exp,
            mass,
            surprise,
            column_sum,
            rows,
            columns,
            heads,
            width,
            scale,
            *query.stride(),
            *key.stride(),
            *log_sum_exp.stride(),
            SCORED=scored,
            PADDED_WIDTH=padded,
            ROWS=row_block,
            COLUMNS=column_block,
            num_warps=warps,
            num_stages=2,
        )
    if not scored:
        return PairSums(mass.sum(2), None, None)
    return PairSums(mass.sum(2), surprise.sum(2), column_sum)


def blocks_for(width: int, bytes_each: int) -> tuple[int, int, int]:
    """Rows, columns and warps of a block for a head of so many numbers.

    The largest blocks of which, on Ampere and Hopper, a thread keeps its part in registers and
    queries (twice, one being loaded) and keys fit in 64 KiB of shared memory.
    """
    if bytes_each == 2:
        return (64, 128, 8) if width <= 128 else (64, 64, 4) if width <= 256 else (16, 16, 4)
    return (32, 32, 4) if width <= 64 else (16, 32, 4) if width <= 128 else (16, 16, 4)
