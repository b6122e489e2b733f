"""Steps of a random transformer with and without readout: `python -m benchmarks.readout`.

The transformer has FLUX.1 Kontext's published size on CUDA and a small one elsewhere. Attention in
every block is what an arm says it is; everything else is the same. Arms that name a form are the
two ways in which PyTorch can sum up scores, of which the readout takes the one that is faster on a
device. Three blocks are also read in double precision, as a check, and twice, to see that two runs
give the same bits.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal
from unittest import mock

import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.transformers import transformer_flux
from torch import Tensor
from torch.nn import functional

from benchmarks.command import finish, kernels, limits, parser
from benchmarks.timing import Row, alternate
from recast_probe._utils.ending import run_program
from recast_probe.attention import attend, dense_attention, sums
from recast_probe.cost_model import FluxConfig, flux_kontext_dev, readout_work, step_work
from recast_probe.layout import Grid, TokenLayout

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
PAIR = ("generation", "reference")
ARMS = (
    *("plain step", "scores", "scores and entropies", "whole mass table"),
    *("scores by a fused call", "scores tile by tile", "materialised softmax"),
)
SMALL = FluxConfig(1, 2, 2, 128, 64, 256, 64, guidance=True)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Alternate the arms; print medians, ranges, memory and bounds."""
    found = parser(__doc__)
    cuda = torch.cuda.is_available()
    found.add_argument("--side", type=int, default=64 if cuda else 24, help="tokens along a side")
    found.add_argument("--references", type=int, default=1)
    found.add_argument("--text", type=int, default=512 if cuda else 64)
    found.add_argument("--double", type=int, help="double-stream blocks")
    found.add_argument("--single", type=int, help="single-stream blocks")
    found.add_argument("--heads", type=int)
    found.add_argument("--dim", type=int, help="channels of a head")
    found.add_argument("--dtype", default="bfloat16" if cuda else "float32")
    found.add_argument(
        "--arms", nargs="+", choices=ARMS, default=ARMS, help="all by default, and always plain"
    )
    options = found.parse_args(arguments)

    start = flux_kontext_dev() if options.device.startswith("cuda") else SMALL
    sizes = {
        "double_blocks": options.double,
        "single_blocks": options.single,
        "heads": options.heads,
        "head_dim": options.dim,
    }
    config = replace(start, **{k: v for k, v in sizes.items() if v is not None})
    grid = Grid(options.side, options.side)
    layout = TokenLayout(options.text, grid, (grid,) * options.references)
    torch.manual_seed(options.seed)
    dtype = getattr(torch, options.dtype)
    model = random_transformer(config, options.device, dtype)
    call = inputs(config, layout, options.device, dtype)

    inside: dict[str, list[float]] = {}

    def step(name: str, attention: Attention) -> Callable[[], object]:
        def timed(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            started = time.perf_counter()
            output = attention(query, key, value)
            inside[name][-1] += time.perf_counter() - started
            return output

        # a GPU works on after a call has returned, so attention alone is timed elsewhere only
        chosen = attention if options.device.startswith("cuda") else timed

        def run() -> None:
            inside.setdefault(name, []).append(0.0)
            with torch.no_grad(), attention_of(chosen):
                model(**call)

        return run

    forms: dict[str, Attention] = {
        ARMS[0]: plain,
        "scores": profiled(layout, "scores"),
        "scores and entropies": profiled(layout, "queried"),
        "whole mass table": profiled(layout, "all"),
        "scores by a fused call": profiled(layout, "scores", fused=True),
        "scores tile by tile": profiled(layout, "scores", fused=False),
        "materialised softmax": lambda q, k, v: materialised(q, k, v, layout)[0],
    }
    rows = alternate(
        {name: step(name, forms[name]) for name in ARMS if name in {ARMS[0], *options.arms}},
        options.repeats,
        options.device,
        ARMS[0],
        least_work(config, layout),
    )
    if not options.device.startswith("cuda"):
        add_attention(rows, inside)
    known = limits(options.device)
    full = step_work(config, layout.text, layout.generation.size, layout.reference_tokens)
    facts = {
        "blocks": config.blocks,
        "tokens": layout.total,
        "parameters": config.parameters,
        "kernels": kernels(config.heads, config.head_dim, dtype, options.device),
        "flop_per_second": full.total / rows[ARMS[0]]["median_seconds"],
        "least_seconds": None if known is None else full.total / known.bfloat16,
        "checks": checked(model, call, layout, options.seed),
        "layout": layout.to_dict(),
        "arms": rows,
    }
    return finish(options, facts, ARMS[0])


def add_attention(rows: dict[str, Row], inside: dict[str, list[float]]) -> None:
    """Write the seconds that attention took, and the ratio of a step in which nothing else changed.

    All arms but for attention do the same, so this ratio has none of the noise of the rest.
    """
    spent = {name: statistics.median(seconds[1:]) for name, seconds in inside.items()}
    whole = rows[ARMS[0]]["median_seconds"]
    for name, seconds in spent.items():
        rows[name]["attention_seconds"] = seconds
        rows[name]["ratio_by_attention"] = (whole + seconds - spent[ARMS[0]]) / whole


def random_transformer(
    config: FluxConfig, device: str, dtype: torch.dtype
) -> FluxTransformer2DModel:
    """A transformer of these sizes, its weights made where they are used."""
    side = config.head_dim * 7 // 32 * 2
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with torch.device("meta"):
        model = FluxTransformer2DModel(
            in_channels=config.channels,
            num_layers=config.double_blocks,
            num_single_layers=config.single_blocks,
            attention_head_dim=config.head_dim,
            num_attention_heads=config.heads,
            joint_attention_dim=config.text_width,
            pooled_projection_dim=config.pooled_width,
            guidance_embeds=config.guidance,
            axes_dims_rope=(config.head_dim - 2 * side, side, side),
        )
    torch.set_default_dtype(usual)
    model = model.to_empty(device=device).eval()
    fill(model)
    return model


def fill(model: torch.nn.Module) -> None:
    """Random weights that keep the size of what passes through them; norms of 1."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=1 / math.sqrt(parameter[0].numel()))
            else:
                parameter.zero_()
        for module in model.modules():
            if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None:
                module.weight.fill_(1)


def inputs(
    config: FluxConfig, layout: TokenLayout, device: str, dtype: torch.dtype
) -> dict[str, Any]:
    """What a pipeline would hand to the transformer."""
    images = [layout.generation, *layout.references]
    positions = torch.cat(
        [
            torch.stack(
                torch.meshgrid(
                    torch.tensor([float(image)]),
                    torch.arange(float(grid.rows)),
                    torch.arange(float(grid.columns)),
                    indexing="ij",
                ),
                dim=-1,
            ).reshape(-1, 3)
            for image, grid in enumerate(images)
        ]
    )
    place = {"device": device, "dtype": dtype}
    return {
        "hidden_states": torch.randn(1, layout.total - layout.text, config.channels, **place),
        "encoder_hidden_states": torch.randn(1, layout.text, config.text_width, **place),
        "pooled_projections": torch.randn(1, config.pooled_width, **place),
        "timestep": torch.tensor([0.5], **place),
        "guidance": torch.tensor([2.5], **place) if config.guidance else None,
        "txt_ids": torch.zeros(layout.text, 3, **place),
        "img_ids": positions.to(**place),
        "return_dict": False,
    }


@contextmanager
def attention_of(attention: Attention) -> Iterator[None]:
    """Every block's attention is this function inside the block."""
    own = transformer_flux.dispatch_attention_fn
    transformer_flux.dispatch_attention_fn = lambda q, k, v, **_: attention(q, k, v)
    try:
        yield
    finally:
        transformer_flux.dispatch_attention_fn = own


def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """PyTorch's own attention."""
    heads_first = (x.permute(0, 2, 1, 3) for x in (query, key, value))
    return functional.scaled_dot_product_attention(*heads_first).permute(0, 2, 1, 3)


def profiled(
    layout: TokenLayout,
    mass_table: Literal["all", "queried", "scores"],
    fused: bool | None = None,
) -> Attention:
    """Attention that is read: as the readout does it, or scores in one of PyTorch's forms."""

    def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if fused is None:
            return attend(query, key, value, layout, mass_table=mass_table).output
        with scores_by(fused):
            return attend(query, key, value, layout, mass_table=mass_table).output

    return attention


@contextmanager
def scores_by(fused: bool) -> Iterator[None]:
    """PyTorch sums up scores by a fused call, or tile by tile; Triton has no part in it."""
    with (
        mock.patch.object(sums, "reader", return_value="torch"),
        mock.patch.object(sums, "fused_is_faster", return_value=fused),
    ):
        yield


def materialised(
    query: Tensor, key: Tensor, value: Tensor, layout: TokenLayout
) -> tuple[Tensor, Tensor]:
    """The whole matrix of probabilities: output, and score (batch, head, reference token)."""
    q, k, v = (x.permute(0, 2, 1, 3) for x in (query, key, value))
    probability = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    block = probability[:, :, layout.span("generation"), layout.span("reference")]
    return (probability @ v).permute(0, 2, 1, 3), block.mean(-2, dtype=torch.float32)


def least_work(config: FluxConfig, layout: TokenLayout) -> dict[str, float]:
    """FLOP of each arm that no implementation of it can do without."""
    generation, reference = layout.generation.size, layout.reference_tokens
    full = step_work(config, layout.text, generation, reference).total
    scores, queried, table = (
        full + readout_work(config, generation, reference, text=layout.text, mass_table=each)
        for each in ("scores", "queried", "all")
    )
    return {
        "plain step": full,
        "scores": scores,
        "scores and entropies": queried,
        "whole mass table": table,
        "scores by a fused call": 2 * scores - full,
        "scores tile by tile": scores,
        "materialised softmax": full,
    }


def checked(
    model: FluxTransformer2DModel, call: dict[str, Any], layout: TokenLayout, seed: int
) -> dict[str, Any]:
    """Three random blocks read in double precision, head by head, and by each form."""
    count = len(model.transformer_blocks) + len(model.single_transformer_blocks)
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:3].tolist()
    held: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
    calls = iter(range(count))

    def keep(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        block = next(calls)
        if block in chosen:
            held[block] = (q.clone(), k.clone(), v.clone())
        return plain(q, k, v)

    with torch.no_grad(), attention_of(keep):
        model(**call)
    found: dict[str, Any] = {"blocks": sorted(chosen), "bit_identical": True}
    errors: dict[str, list[float]] = {}
    for q, k, v in held.values():
        first, again = (attend(q, k, v, layout).pairs[PAIR].score for _ in range(2))
        found["bit_identical"] &= bool(torch.equal(first, again))
        scores = {"readout": first}
        for name, fused in (("fused_call", True), ("tiles", False)):
            with scores_by(fused):
                read = attend(q, k, v, layout, mass_table="scores")
            scores[name] = read.pairs[PAIR].score
        for head in range(q.shape[2]):
            one = [x[:, :, head : head + 1] for x in (q, k, v)]
            truth = dense_attention(*one, layout).pairs[PAIR].score[:, 0]
            for name, score in scores.items():
                error = (score[:, head].double() - truth).abs()
                errors.setdefault(f"relative_error_{name}", []).append(float((error / truth).max()))
                share = float((error / truth.sum(-1, keepdim=True)).max())
                errors.setdefault(f"error_of_sum_{name}", []).append(share)
    return found | {name: max(values) for name, values in errors.items()}


if __name__ == "__main__":
    run_program(main, "readout")
