"""One step at the size of a published model, full and pruned: `python -m benchmarks.steps`.

A pipeline with the published blocks, but few of them, and with random weights; what stands around
the transformer is tiny. A run has two steps and no decoding, and its second step is timed, since
methods read the full reference in the first. So a row says what a later step of a long run costs,
on a machine that the whole model does not fit. Arms run as the plain pipeline under `accelerate`;
`--compiled` times some of them with compiled blocks as well.
"""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import AutoencoderKLQwenImage

import recast_probe as rp
from benchmarks.command import finish, kernels, limits, parser
from benchmarks.plans import full_run, least_work, plan_of
from benchmarks.readout import fill
from benchmarks.runs import Compiled, within
from benchmarks.timing import add_speed_ups, alternate
from recast_probe import cost_model
from recast_probe._utils.ending import run_program
from recast_probe.cost_model import RunPlan
from recast_probe.cost_model.published_configs import CONFIGS, PUBLISHED
from recast_probe.testing import tiny
from recast_probe.testing.tiny_pipelines import tiny_pipeline

FULL = "full"
STEPS = 2
# tokens in and out, and the text's, are those of the tiny parts around
TINY_SIZES = ("in_channels", "out_channels", "joint_attention_dim", "pooled_projection_dim")


@dataclass(frozen=True)
class Model:
    """A published transformer, and the tiny pipeline that it stands in.

    Attributes:
        published: its name in the cost model.
        pipeline: name of the tiny pipeline.
        blocks: how many there are of each kind, by the config's names.
        arguments: what the pipeline is called with.
        parts: makes parts of the pipeline that are not the tiny one's.
    """

    published: str
    pipeline: str
    blocks: Mapping[str, int]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    parts: Callable[[], dict[str, Any]] = dict


def _autoencoder() -> dict[str, Any]:
    """Qwen-Image's halves an image three times; the tiny one more often."""
    vae = AutoencoderKLQwenImage(
        base_dim=2,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=0,
        temperal_downsample=[False] * 3,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    return {"vae": vae.eval()}


BOTH_KINDS = {"num_layers": 1, "num_single_layers": 1}
MODELS = {
    "flux-kontext": Model(
        "flux-kontext",
        "flux-kontext",
        BOTH_KINDS,
        {"max_sequence_length": 512, "_auto_resize": False},
    ),
    "flux2-klein-4b": Model(
        "flux2-klein-4b",
        "flux2-klein",
        BOTH_KINDS,
        {"max_sequence_length": 512, "guidance_scale": 1.0},
    ),
    "qwen-image-edit": Model(
        "qwen-image-edit",
        "qwen-image-edit",
        {"num_layers": 2},
        {"true_cfg_scale": 1.0},
        _autoencoder,
    ),
}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Alternate the arms; print medians, ranges, memory and bounds of their second step."""
    found = parser(__doc__, repeats=3)
    found.add_argument("--model", choices=MODELS, default="flux-kontext")
    found.add_argument("--dtype", default="bfloat16")
    found.add_argument("--pixels", type=int, default=1024, help="along a side")
    found.add_argument("--budgets", type=int, nargs="+", default=[1024, 600, 256])
    found.add_argument("--compiled", action="store_true", help="some arms compiled as well")
    found.add_argument("--arms", nargs="+", help="all by default, and always the full step")
    found.add_argument("--narrow", type=int, default=1, help="divides the heads, for tests")
    options = found.parse_args(arguments)
    model = MODELS[options.model]
    torch.manual_seed(options.seed)
    dtype = getattr(torch, options.dtype)
    pipe = build(model, options.narrow).to(options.device, dtype)
    bench = _Bench(pipe, model, options.pixels, options.seed)

    middle = sorted(options.budgets)[len(options.budgets) // 2]
    chosen: dict[str, tuple[Any, ...]] = {
        FULL: (),
        **{f"ReCAST, {budget} tokens": ("recast", budget) for budget in options.budgets},
        "no reference": ("none",),
        "reuse, all tokens": ("reuse",),
        f"merge (ToMe), {middle} tokens": ("merge", middle),
    }
    arms = {name: bench.arm(name, *method) for name, method in chosen.items()}
    if options.compiled:
        compiled = Compiled(pipe.transformer)
        for name in (FULL, f"ReCAST, {middle} tokens", "no reference"):
            arms[f"{name}, compiled"] = within(
                compiled, bench.arm(f"{name}, compiled", *chosen[name])
            )
    if unknown := [name for name in options.arms or () if name not in arms]:
        found.error(f"there is no arm {unknown[0]!r}; there is {'; '.join(arms)}")
    arms = {name: arms[name] for name in arms if name == FULL or name in (options.arms or arms)}
    rows = alternate(arms, options.repeats, options.device, FULL)
    config = cost_model.config_of(pipe.transformer)
    work = {name: least_work(config, plan) for name, plan in bench.plans.items()}
    add_speed_ups(rows, FULL, work)
    known = limits(options.device)
    facts = {
        "model": f"{model.published}, {config.blocks} of its blocks",
        "parameters": config.parameters,
        "tokens": bench.layout.total,
        "kernels": kernels(config.heads, config.head_dim, dtype, options.device),
        "flop_per_second": work[FULL] / rows[FULL]["median_seconds"],
        "least_seconds": None if known is None else work[FULL] / known.bfloat16,
        "layout": bench.layout.to_dict(),
        "arms": rows,
    }
    return finish(options, facts, FULL)


def build(model: Model, narrow: int = 1) -> Any:
    """The tiny pipeline with the published blocks in it, of which few are made."""
    tiny_one = tiny_pipeline(model.pipeline)
    published = json.loads((CONFIGS / PUBLISHED[model.published]).read_text("utf-8"))
    own = {name: value for name, value in tiny_one.transformer.config.items() if name in TINY_SIZES}
    heads = max(1, published["num_attention_heads"] // narrow)
    kind = type(tiny_one.transformer)
    transformer = kind.from_config(
        {**published, **own, **model.blocks, "num_attention_heads": heads}
    )
    fill(transformer)
    parts = {**tiny_one.components, "transformer": transformer.eval(), **model.parts()}
    pipe = type(tiny_one)(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


class _Bench:
    """The arms of one pipeline, and the plans that their second steps followed."""

    def __init__(self, pipe: Any, model: Model, pixels: int, seed: int) -> None:
        self.pipe, self.seed = pipe, seed
        image = tiny.tiny_image(pixels, pixels)
        probe = rp.Probe(pipe)
        size = {"height": pixels, "width": pixels, **model.arguments}
        if "max_area" in inspect.signature(pipe.__call__).parameters:
            size["max_area"] = pixels**2
        self.arguments = probe.pipeline_arguments(image, "a red fox", STEPS, seed, **size)
        self.layout = probe.layout(image, "a red fox", **size)
        self.plans: dict[str, RunPlan] = {}

    def arm(self, name: str, method: str = FULL, budget: int | None = None) -> Callable[[], float]:
        """A run under a method of `accelerate`; it returns the seconds of its second step."""
        ends: list[float] = []
        cuda = self.pipe.device.type == "cuda"
        # other programs hardly change what one core spends on this one
        alone = not cuda and torch.get_num_threads() == 1
        clock = time.process_time if alone else time.perf_counter

        def ended(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            if cuda:
                torch.cuda.synchronize()
            ends.append(clock())
            return tensors

        def run() -> float:
            ends.clear()
            own = {
                "generator": torch.Generator().manual_seed(self.seed),
                "callback_on_step_end": ended,
                "output_type": "latent",
            }
            plan = full_run(self.layout, STEPS)
            if method == FULL:
                self.pipe(**self.arguments | own)
            else:
                with rp.accelerate(self.pipe, method, budget, seed=self.seed) as faster:
                    self.pipe(**self.arguments | own)
                    done = faster.report
                assert done is not None
                plan = plan_of(plan, done["reference_tokens_per_step"], done["interventions"])
            self.plans[name] = replace(plan, steps=plan.steps[1:])
            return ends[1] - ends[0]

        return run


if __name__ == "__main__":
    run_program(main, "steps")
