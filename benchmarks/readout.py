"""Steps of a random transformer with and without readout: `python -m benchmarks.readout`.

The transformer has FLUX.1 Kontext's published size on CUDA and a small one elsewhere. Attention in
every block is what an arm says it is; everything else is the same. Three blocks are also read in
double precision, as a check, and twice, to see that two runs give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from diffusers import FluxTransformer2DModel
from diffusers.models.transformers import transformer_flux
from torch import Tensor
from torch.nn import functional

from benchmarks.command import finish, kernels, limits, parser
from benchmarks.timing import alternate
from recast_probe._utils.ending import run_program
from recast_probe.attention import attend, attention_with_log_sum_exp, dense_attention
from recast_probe.cost_model import FluxConfig, flux_kontext_dev, readout_work, step_work
from recast_probe.layout import Grid, TokenLayout

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
PAIR = ("generation", "reference")
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

    def step(attention: Attention) -> Callable[[], object]:
        def run() -> None:
            with torch.no_grad(), attention_of(attention):
                model(**call)

        return run

    forms: dict[str, Attention] = {
        "plain step": plain,
        "profiled step": lambda q, k, v: attend(q, k, v, layout, mass_table="queried").output,
        "profiled step, whole mass table": lambda q, k, v: attend(q, k, v, layout).output,
        "transposed log-sum-exp": lambda q, k, v: transposed(q, k, v, layout)[0],
        "materialised softmax": lambda q, k, v: materialised(q, k, v, layout)[0],
    }
    rows = alternate(
        {name: step(form) for name, form in forms.items()},
        options.repeats,
        options.device,
        "plain step",
        least_work(config, layout),
    )
    known = limits(options.device)
    full = step_work(config, layout.text, layout.generation.size, layout.reference_tokens)
    facts = {
        "blocks": config.blocks,
        "tokens": layout.total,
        "parameters": config.parameters,
        "kernels": kernels(config.heads, config.head_dim, dtype, options.device),
        "flop_per_second": full.total / rows["plain step"]["median_seconds"],
        "least_seconds": None if known is None else full.total / known.bfloat16,
        "checks": checked(model, call, layout, options.seed),
        "layout": layout.to_dict(),
        "arms": rows,
    }
    return finish(options, facts, "plain step")


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


def materialised(
    query: Tensor, key: Tensor, value: Tensor, layout: TokenLayout
) -> tuple[Tensor, Tensor]:
    """The whole matrix of probabilities: output, and score (batch, head, reference token)."""
    q, k, v = (x.permute(0, 2, 1, 3) for x in (query, key, value))
    probability = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    block = probability[:, :, layout.span("generation"), layout.span("reference")]
    return (probability @ v).permute(0, 2, 1, 3), block.mean(-2, dtype=torch.float32)


def transposed(
    query: Tensor, key: Tensor, value: Tensor, layout: TokenLayout
) -> tuple[Tensor, Tensor]:
    """A second attention call with the reference keys as queries.

    Its keys are the generation queries, and minus their row log-sum-exp comes in through further
    channels of the heads; its own log-sum-exp then is the logarithm of the summed probabilities.
    Half-precision log-sum-exps are split over three channels, which together hold 24 bits or more.
    """
    output, lse, _ = attention_with_log_sum_exp(query, key, value)
    rows, columns = layout.span("generation"), layout.span("reference")
    scale, width = 1 / math.sqrt(query.shape[-1]), query.shape[-1]
    rest = (-lse[:, :, rows] / scale).permute(0, 2, 1)[..., None]
    parts = []
    for _ in range(3):
        parts.append(rest.to(query.dtype))
        rest = rest - parts[-1].float()
    padding = torch.zeros_like(parts[0]).expand(*parts[0].shape[:-1], 5)
    keys = torch.cat([query[:, rows], *parts, padding], dim=-1)
    ones = torch.zeros(*key[:, columns].shape[:-1], 8, dtype=key.dtype, device=key.device)
    ones[..., :3] = 1
    queries = torch.cat([key[:, columns], ones], dim=-1)
    assert keys.shape[-1] == queries.shape[-1] == width + 8
    _, sums, _ = attention_with_log_sum_exp(queries, keys, keys, scale)
    return output, sums.exp() / (rows.stop - rows.start)


def least_work(config: FluxConfig, layout: TokenLayout) -> dict[str, float]:
    """FLOP of each arm that no implementation of it can do without."""
    generation, reference = layout.generation.size, layout.reference_tokens
    full = step_work(config, layout.text, generation, reference).total
    reading = readout_work(config, generation, reference)
    table = config.blocks * 2.0 * config.width * layout.total**2
    return {
        "plain step": full,
        "profiled step": full + reading,
        "profiled step, whole mass table": full + table,
        "transposed log-sum-exp": full + 2 * reading,
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
    errors: dict[str, list[float]] = {"readout": [], "transposed": []}
    for q, k, v in held.values():
        first, again = (attend(q, k, v, layout, mass_table="queried").pairs[PAIR] for _ in range(2))
        found["bit_identical"] &= bool(torch.equal(first.score, again.score))
        other = transposed(q, k, v, layout)[1]
        for head in range(q.shape[2]):
            one = [x[:, :, head : head + 1] for x in (q, k, v)]
            truth = dense_attention(*one, layout).pairs[PAIR].score[:, 0]
            for name, score in (("readout", first.score), ("transposed", other)):
                error = (score[:, head].double() - truth).abs() / truth
                errors[name].append(float(error.max()))
    return found | {f"relative_error_{name}": max(values) for name, values in errors.items()}


if __name__ == "__main__":
    run_program(main, "readout")
