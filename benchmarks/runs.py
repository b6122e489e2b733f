"""Whole runs, full and with less to compute, next to their bounds: `python -m benchmarks.runs`.

On CUDA the full run and the run without a reference are also timed compiled and with each of
PyTorch's fused attention kernels. Speed-ups are over the plain pipeline, and once more over the
fastest full run of all.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_dispatch import attention_backend

import recast_probe as rp
from benchmarks.command import (
    add_model,
    config_of,
    finish,
    kernels,
    limits,
    open_probe,
    parser,
)
from benchmarks.plans import full_run, least_work, plan_of_run
from benchmarks.timing import add_speed_ups, alternate
from recast_probe import pocket
from recast_probe.arithmetic import RunPlan
from recast_probe.images import load_image
from recast_probe.interventions.methods import METHODS, method

FULL = "full (plain pipeline)"
# of the transformer alone: text encoders have masks, which not every kernel takes
BACKENDS = {
    "flash": "_native_flash",
    "memory-efficient": "_native_efficient",
    "cudnn": "_native_cudnn",
}


@dataclass(frozen=True)
class NamedArm:
    """An arm by a name of `interventions.methods`; left out where there is no such method.

    Attributes:
        method: name there.
        part: one of so many reference tokens stays; None for Eq. 4, scaled to the reference.
    """

    method: str
    part: int | None = None


# the list to extend: a method of that name is all that an arm needs
ARMS: dict[str, NamedArm] = {
    "traced, all tokens": NamedArm("full"),
    "no reference": NamedArm("none"),
    **{f"budget 1/{part}": NamedArm("random", part) for part in (2, 4, 8, 16)},
    "recast": NamedArm("recast"),
    "merge (ToMe)": NamedArm("merge"),
    "reuse, all tokens": NamedArm("reuse", 1),
    "reuse with Eq. 4": NamedArm("reuse"),
    "step-cache": NamedArm("step-cache"),
    "reuse with Eq. 4, step-cache": NamedArm("reuse+step-cache"),
}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Alternate the arms; print medians, ranges, memory and bounds."""
    found = parser(__doc__)
    add_model(found)
    found.add_argument("--image", type=Path, help="the reference; a bundled one by default")
    found.add_argument("--prompt", default="")
    found.add_argument("--arms", help="names or parts of names, separated by commas; all if absent")
    options = found.parse_args(arguments)
    probe = open_probe(options)
    bench = Bench(probe, options)
    arms, plans = bench.arms, bench.plans
    rows = alternate(arms, options.repeats, options.device, FULL, may_fail=True)
    config = config_of(probe)
    work = {name: least_work(config, plan) for name, plan in plans.items()}
    add_speed_ups(rows, FULL, work)
    fastest = min(
        (name for name in rows if name.startswith("full") and "median_seconds" in rows[name]),
        key=lambda name: rows[name]["median_seconds"],
    )
    known = limits(options.device)
    for name, row in rows.items():
        if "median_seconds" in row:
            row["speed_up_over_fastest_full"] = (
                rows[fastest]["median_seconds"] / row["median_seconds"]
            )
            if known is not None and name in work:
                row["least_seconds"] = work[name] / known.bfloat16
    layout = bench.layout
    dtype = next(probe.pipe.transformer.parameters()).dtype
    facts = {
        "model": probe.name,
        "fingerprint": probe.fingerprint,
        "parameters": config.parameters,
        "tokens": layout.total,
        "kernels": kernels(config.heads, config.head_dim, dtype, options.device),
        "fastest_full": fastest,
        "layout": layout.to_dict(),
        "arms": rows,
    }
    return finish(options, facts, FULL)


class Bench:
    """The arms of one model and reference, and the plans that their runs followed."""

    def __init__(self, probe: rp.Probe, options: argparse.Namespace) -> None:
        sample = pocket.samples()[0]
        self.probe, self.options = probe, options
        self.image = load_image(options.image) if options.image else sample.image
        self.prompt = options.prompt or sample.prompts[0]
        self.layout = probe.layout(self.image)
        self.full = full_run(self.layout, options.steps)
        self.plans: dict[str, RunPlan] = {}
        self.arms: dict[str, Callable[[], object]] = {FULL: self._plain(FULL, self.image)}
        for name, arm in ARMS.items():
            if arm.method in METHODS:
                self.arms[name] = self._named(name, arm)
        hooked = "hooked, all tokens"
        self.arms[hooked] = self._intervened(hooked, [], attachment="hooks")
        token_cache = "token-cache (ToCa)"
        self.arms[token_cache] = self._intervened(token_cache, [rp.TokenCache()])
        if options.device.startswith("cuda"):
            self._add_cuda_arms()
        wanted = [part.strip() for part in (options.arms or "").split(",") if part.strip()]
        if wanted:
            self.arms = {
                name: arm
                for name, arm in self.arms.items()
                if name == FULL or any(part in name for part in wanted)
            }

    def _plain(self, name: str, image: Any) -> Callable[[], object]:
        """The pipeline without the probe."""
        arguments = self.probe.pipeline_arguments(
            image, self.prompt, self.options.steps, self.options.seed
        )
        self.plans[name] = self.full if image is not None else self.full.keep(0, start=0)

        def run() -> None:
            generator = torch.Generator().manual_seed(self.options.seed)
            self.probe.pipe(**arguments | {"generator": generator})

        return run

    def _named(self, name: str, arm: NamedArm) -> Callable[[], object]:
        tokens = self.layout.reference_tokens
        budget: Any = rp.Adaptive.paper(tokens)
        if arm.part is not None:
            budget = rp.Fixed(max(1, tokens // arm.part))
        chosen = method(arm.method, budget, self.layout, seed=self.options.seed)
        return self._intervened(name, chosen)

    def _intervened(
        self, name: str, interventions: Sequence[rp.Intervention], attachment: str = "nnsight"
    ) -> Any:
        def run() -> None:
            result = self.probe.generate(
                self.image,
                self.prompt,
                steps=self.options.steps,
                seed=self.options.seed,
                interventions=interventions,
                attachment=attachment,
                mass_table="queried",
                progress=False,
            )
            self.plans[name] = plan_of_run(self.full, result)

        return run

    def _add_cuda_arms(self) -> None:
        compiled = Compiled(self.probe.pipe.transformer)
        references = {"full": self.image, "no reference": None}
        for what, image in references.items():
            for label, backend in BACKENDS.items():
                name = f"{what}, {label} attention"
                plain = self._plain(name, image)
                self.arms[name] = _within(lambda b=backend: attention_backend(b), plain)
            name = f"{what}, compiled"
            self.arms[name] = _within(compiled, self._plain(name, image))


def _within(context: Callable[[], Any], run: Callable[[], object]) -> Callable[[], object]:
    def inside() -> None:
        with context():
            run()

    return inside


class Compiled:
    """Repeated blocks of a transformer, compiled inside a block and plain outside of it."""

    def __init__(self, transformer: torch.nn.Module) -> None:
        self.transformer = transformer
        self._compiled: dict[torch.nn.Module, Any] = {}

    @contextmanager
    def __call__(self) -> Iterator[None]:
        if not self._compiled:
            # the compiled calls stay valid while they are put aside
            self.transformer.compile_repeated_blocks(fullgraph=True)  # type: ignore[operator]
            self._compiled = {
                module: module._compiled_call_impl
                for module in self.transformer.modules()
                if module._compiled_call_impl is not None
            }
        for module, call in self._compiled.items():
            module._compiled_call_impl = call
        try:
            yield
        finally:
            for module in self._compiled:
                module._compiled_call_impl = None


if __name__ == "__main__":
    main()
