"""Readout against plain and materialised attention: `python -m benchmarks.readout --json`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable

import torch
from torch.nn import functional

from benchmarks.timing import alternate, print_rows
from recast_probe.attention import attend
from recast_probe.layout import Grid, TokenLayout


def main() -> None:
    """Alternate the arms in one process; print medians, interquartile ranges and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=64, help="tokens along one image side")
    parser.add_argument("--text", type=int, default=512, help="text tokens")
    parser.add_argument("--heads", type=int, default=2)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    grid = Grid(arguments.side, arguments.side)
    layout = TokenLayout(arguments.text, grid, (grid,))
    shape = (1, layout.total, arguments.heads, arguments.dim)
    dtype = getattr(torch, arguments.dtype)
    q, k, v = (torch.randn(shape).to(arguments.device, dtype) for _ in range(3))

    def plain() -> None:
        functional.scaled_dot_product_attention(*(x.permute(0, 2, 1, 3) for x in (q, k, v)))

    def materialised() -> None:
        a, b, c = (x.permute(0, 2, 1, 3) for x in (q, k, v))
        probability = (a @ b.transpose(-1, -2) / math.sqrt(arguments.dim)).softmax(-1)
        probability[:, :, layout.span("generation"), layout.span("reference")].mean(-2)
        probability @ c

    arms: dict[str, Callable[[], object]] = {
        "plain": plain,
        "readout, generation rows": lambda: attend(q, k, v, layout, mass_table="queried"),
        "readout, whole table": lambda: attend(q, k, v, layout),
        "materialised softmax": materialised,
    }
    rows = alternate(arms, arguments.repeats, arguments.device, "plain")
    result = {
        "tokens": layout.total,
        "heads": arguments.heads,
        "dim": arguments.dim,
        "dtype": arguments.dtype,
        "device": arguments.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "backend": attend(q, k, v, layout, mass_table="queried").backend,
        "arms": rows,
    }
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{layout.total} tokens, {arguments.heads} heads, {arguments.dtype}, {result['backend']}")
    print_rows(rows, "plain")


if __name__ == "__main__":
    main()
