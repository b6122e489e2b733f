"""Run by `test_triton_sums` in a process of its own, where Triton interprets kernels on the CPU.

Prints one JSON object a case: the largest differences from a dense float64 softmax, and whether a
second run gave the same bits.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import fields

import numpy as np
import torch
import triton.language as tl

from recast_probe.attention import attend, dense_attention, sums
from recast_probe.attention.log_sum_exp import default_scale, streamed_log_sum_exp
from recast_probe.attention.triton_sums import triton_sums
from recast_probe.layout import Grid, TokenLayout

# batch, rows, columns, heads, head dim
SHAPES = {
    "one of everything": (1, 1, 1, 1, 1),
    "less than a block": (2, 5, 7, 3, 24),
    "exactly a block": (1, 64, 128, 1, 16),
    "a row and a column more": (1, 65, 129, 2, 32),
    "a wide head": (1, 70, 40, 1, 128),
    "a head of no power of two": (2, 33, 140, 2, 96),
    "the widest head": (1, 20, 20, 1, 256),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def inputs(shape: tuple[int, ...], dtype: torch.dtype, spread: float = 2.0):
    batch, rows, columns, heads, width = shape
    generator = torch.Generator().manual_seed(sum(shape))
    # strided as in an attention call: rows and columns are parts of one sequence
    tokens = torch.randn(2, batch, rows + columns, heads, width, generator=generator)
    query, key = (spread * tokens).to(dtype)
    return query, key


def differences(shape: tuple[int, ...], dtype: torch.dtype, scored: bool) -> dict[str, float]:
    query, key = inputs(shape, dtype)
    rows, scale = shape[1], default_scale(query)
    q, k = (tensor.permute(0, 2, 1, 3).double() for tensor in (query, key))
    logits = q @ k.transpose(-1, -2) * scale
    probability = logits.softmax(-1)[:, :, :rows, rows:]
    logarithm = logits.log_softmax(-1)[:, :, :rows, rows:]
    lse = streamed_log_sum_exp(q, k, scale).float()[..., :rows]
    arguments = (query[:, :rows], key[:, rows:], lse, scale)
    found, again = (triton_sums(*arguments, scored=scored) for _ in range(2))
    torch_found = sums.chunked_sums(*arguments, scored=scored)
    expected = (
        probability.sum(-1),
        (probability * logarithm).sum(-1) if scored else None,
        probability.sum(-2) if scored else None,
    )
    result: dict[str, float] = {"repeats": 1.0}
    names = ("row_mass", "row_surprise", "column_sum")
    for name, a, b, c, d in zip(names, found, again, torch_found, expected, strict=True):
        if d is None:
            assert a is None
            continue
        result[name] = float((a.double() - d).abs().max())
        result[f"{name}_torch"] = float((c.double() - d).abs().max())
        result["repeats"] *= float(torch.equal(a, b))
    if scored:
        relative = (found.column_sum.double() - expected[2]).abs() / expected[2]
        result["relative"] = float(relative.max())
    return result


def readout(table: str) -> dict[str, float]:
    """A whole readout through the kernel against the dense one."""
    layout = TokenLayout(11, Grid(6, 7), (Grid(4, 9), Grid(3, 3)))
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, layout.total, 3, 40, generator=generator)
    pairs = (("generation", "reference"), ("generation", "reference_1"), ("reference", "text"))
    # the process has no GPU, so the choice that falls on the kernel there is made by hand
    sums.reader = lambda device, dtype: "triton"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a fallback would warn
        found = attend(q, k, v, layout, pairs=pairs, mass_table=table, heads=[2, 0])
    dense = dense_attention(q, k, v, layout, pairs=pairs)
    result = {"row_sum_error": found.row_sum_error}
    for pair in pairs:
        a, b = found.pairs[pair], dense.pairs[pair]
        for name in (each.name for each in fields(a)):
            difference = (getattr(a, name).double() - getattr(b, name)[:, [2, 0]]).abs().max()
            result[f"{' to '.join(pair)} {name}"] = float(difference)
    rows = [1, 2] if table == "queried" else [0, 1, 2]
    result["mass"] = float((found.mass.double() - dense.mass[:, [2, 0]])[:, :, rows].abs().max())
    return result


def nonsense() -> dict[str, float]:
    """What becomes of a log-sum-exp that is none."""
    query, key = inputs((1, 20, 20, 1, 16), torch.float32)
    found = {}
    for name, value in (("nan", float("nan")), ("infinite", float("inf"))):
        lse = torch.full((1, 1, 20), value)
        mass = triton_sums(query[:, :20], key[:, 20:], lse, 0.25).row_mass
        found[name] = float(mass.isnan().all() if name == "nan" else (mass == 0).all())
    return found


def teach_bfloat16() -> None:
    """The interpreter holds bfloat16 as integers, and multiplies them as such unless told."""
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    multiply = builder.create_dot

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        values = handle.data.astype(np.uint32) << 16
        return interpreter.TensorHandle(values.view(np.float32), tl.float32)

    def create_dot(self, a, b, *rest):
        return multiply(self, widened(a), widened(b), *rest)

    builder.create_dot = create_dot


def main() -> None:
    teach_bfloat16()
    cases = {}
    for name, shape in SHAPES.items():
        for dtype_name, dtype in DTYPES.items():
            cases[f"{name}, {dtype_name}"] = differences(shape, dtype, scored=True)
    cases["mass only"] = differences(SHAPES["a row and a column more"], torch.float32, False)
    cases["nonsense"] = nonsense()
    for table in ("all", "queried"):
        cases[f"readout, {table}"] = readout(table)
    json.dump(cases, sys.stdout)


if __name__ == "__main__":
    main()
