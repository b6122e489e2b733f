"""How a step grows with references, pixels and pairs: `python -m benchmarks.scaling`.

References and pixels are sizes of the sequence of a random transformer (see `benchmarks.readout`),
so more references can be timed than today's pipelines take; pairs are runs of one pipeline, one
after the other, which should cost the same time each and no more memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.command import finish, kernels, limits, open_probe, parser
from benchmarks.readout import SMALL, inputs, random_transformer
from benchmarks.timing import Row, alternate
from recast_probe import pocket
from recast_probe._utils.ending import run_program
from recast_probe.cost_model import flux_kontext_dev, step_work
from recast_probe.layout import Grid, TokenLayout

TOKEN_PIXELS = 16


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Time steps of every size and runs of every number of pairs."""
    cuda = torch.cuda.is_available()
    found = parser(__doc__, repeats=3)
    found.add_argument("--pixels", default="512,1024,2048" if cuda else "128,256,384")
    found.add_argument("--references", default="1,2,4")
    found.add_argument("--pairs", default="1,4,16" if cuda else "1,2,4")
    found.add_argument("--text", type=int, default=512 if cuda else 32)
    found.add_argument("--dtype", default="bfloat16" if cuda else "float32")
    found.add_argument("--model", help="of the pairs; Pocket Kontext by default")
    found.add_argument("--steps", type=int, default=28 if cuda else 2, help="of the pairs")
    options = found.parse_args(arguments)
    sizes = {name: _numbers(getattr(options, name)) for name in ("pixels", "references", "pairs")}

    config = flux_kontext_dev() if options.device.startswith("cuda") else SMALL
    dtype = getattr(torch, options.dtype)
    torch.manual_seed(options.seed)
    model = random_transformer(config, options.device, dtype)
    middle = sizes["pixels"][len(sizes["pixels"]) // 2]
    shapes = [(pixels, 1) for pixels in sizes["pixels"]]
    shapes += [(middle, count) for count in sizes["references"] if count != 1]
    arms: dict[str, Callable[[], object]] = {}
    work: dict[str, float] = {}
    for pixels, references in shapes:
        grid = Grid(pixels // TOKEN_PIXELS, pixels // TOKEN_PIXELS)
        layout = TokenLayout(options.text, grid, (grid,) * references)
        call = inputs(config, layout, options.device, dtype)
        name = f"{pixels} x {pixels}, {references} reference{'s' if references > 1 else ''}"
        arms[name] = functools.partial(_step, model, call)
        work[name] = step_work(
            config, layout.text, layout.generation.size, layout.reference_tokens
        ).total
    base = f"{middle} x {middle}, 1 reference"
    rows = alternate(arms, options.repeats, options.device, base, work, may_fail=True)
    known = limits(options.device)
    for name, row in rows.items():
        if "median_seconds" in row:
            row["flop_per_second"] = work[name] / row["median_seconds"]
            row["least_seconds"] = None if known is None else work[name] / known.bfloat16
    arms.clear()
    del model
    rows |= _pairs(options, sizes["pairs"])
    facts = {
        "blocks": config.blocks,
        "kernels": kernels(config.heads, config.head_dim, dtype, options.device),
        "arms": rows,
    }
    return finish(options, facts, base)


def _step(model: torch.nn.Module, call: dict[str, Any]) -> None:
    with torch.no_grad():
        model(**call)


def _pairs(options: Any, counts: list[int]) -> dict[str, Row]:
    options.dtype = options.dtype if options.model else "auto"
    probe = open_probe(options)
    samples = pocket.samples()

    def profiles(count: int) -> None:
        for index in range(count):
            sample = samples[index % len(samples)]
            probe.profile(
                sample.image,
                sample.prompts[0],
                steps=options.steps,
                profile_steps=[0],
                seed=options.seed,
                mass_table="queried",
                progress=False,
            )

    arms = {f"{count} pairs profiled": (lambda n=count: profiles(n)) for count in counts}
    first = f"{counts[0]} pairs profiled"
    # a pair's work is the same in every arm, so the bound of each is its number of pairs
    work = {f"{count} pairs profiled": float(count) for count in counts}
    return alternate(arms, options.repeats, options.device, first, work)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    run_program(main, "scaling")
