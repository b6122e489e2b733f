"""Whole runs, full and with less to compute, next to their bounds: `python -m benchmarks.runs`.

Arms run under the probe, or as the plain pipeline under `accelerate`. With `--compiled`, the
default on CUDA, the full run, the run without a reference and the accelerated ones are timed with
compiled blocks as well; on CUDA the first two also with each of PyTorch's fused attention kernels.
`--backend` chooses one for all arms. Speed-ups are over the plain pipeline, and once more over the
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
from benchmarks.plans import full_run, least_work, plan_of, plan_of_run
from benchmarks.timing import add_speed_ups, alternate
from recast_probe import pocket
from recast_probe._utils.ending import run_program
from recast_probe.cost_model import RunPlan
from recast_probe.errors import InputError
from recast_probe.images.loading import load_image
from recast_probe.interventions.methods import METHODS, REUSING, method

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
}


@dataclass(frozen=True)
class AcceleratedArm:
    """An arm of `accelerate`, whose pipeline is called as always.

    Attributes:
        method: name in `interventions.methods`.
        adaptive: Eq. 4, scaled to the reference; False keeps all reference tokens.
        computed: share of the steps that are computed; 1 for all.
        refreshed: keys and values are stored again as often as `accelerate` does by itself.
    """

    method: str
    adaptive: bool = True
    computed: float = 1.0
    refreshed: bool = False


ACCELERATED: dict[str, AcceleratedArm] = {
    "accelerated: recast": AcceleratedArm("recast"),
    "accelerated: as it is": AcceleratedArm("reuse", adaptive=False, refreshed=True),
    "accelerated: reuse, all tokens": AcceleratedArm("reuse", adaptive=False),
    "accelerated: reuse with Eq. 4": AcceleratedArm("reuse"),
    **{
        f"accelerated: reuse with Eq. 4, {count}/28 steps": AcceleratedArm(
            "reuse+step-cache", computed=count / 28
        )
        for count in (24, 20, 16)
    },
}
# compiled blocks are compiled once for every number of tokens, so there should be few
COMPILED_STAGES = 4
COMPILE_OPTIONS: dict[str, Any] = {"fullgraph": True}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Alternate the arms; print medians, ranges, memory and bounds."""
    found = parser(__doc__)
    add_model(found)
    found.add_argument("--image", type=Path, help="the reference; a bundled one by default")
    found.add_argument("--prompt", default="")
    found.add_argument("--arms", help="names or parts of them, between semicolons; all if absent")
    found.add_argument("--backend", help="attention backend of diffusers, for all arms")
    found.add_argument(
        "--compiled",
        action=argparse.BooleanOptionalAction,
        help="also with compiled blocks; as it is on CUDA if absent",
    )
    options = found.parse_args(arguments)
    probe = open_probe(options)
    if options.backend:
        probe.pipe.transformer.set_attention_backend(options.backend)
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
        "attention_backend": options.backend or "the default",
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
        for name, accelerated in ACCELERATED.items():
            self.arms[name] = self._accelerated(name, accelerated)
        cuda = options.device.startswith("cuda")
        if cuda and not options.backend:
            self._add_backends()
        if cuda if options.compiled is None else options.compiled:
            self._add_compiled()
        wanted = [part.strip() for part in (options.arms or "").split(";") if part.strip()]
        if unknown := [part for part in wanted if not any(part in name for name in self.arms)]:
            raise InputError(f"There is no arm {unknown[0]!r}; there is {'; '.join(self.arms)}.")
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

    def _accelerated(
        self, name: str, arm: AcceleratedArm, align: int | None = None
    ) -> Callable[[], object]:
        arguments = self.probe.pipeline_arguments(
            self.image, self.prompt, self.options.steps, self.options.seed
        )
        budget = rp.Adaptive.paper(self.layout.reference_tokens) if arm.adaptive else None
        computed = None if arm.computed == 1 else arm.computed
        refresh = 0 if arm.method in REUSING and not arm.refreshed else None

        def run() -> None:
            generator = torch.Generator().manual_seed(self.options.seed)
            with rp.accelerate(
                self.probe.pipe,
                arm.method,
                budget,
                computed=computed,
                refresh=refresh,
                align=None if budget is None else align,
                seed=self.options.seed,
            ) as faster:
                self.probe.pipe(**arguments | {"generator": generator})
                done = faster.report
            assert done is not None
            self.plans[name] = plan_of(
                self.full, done["reference_tokens_per_step"], done["interventions"]
            )

        return run

    def _add_backends(self) -> None:
        for what, image in self._plain_runs().items():
            for label, backend in BACKENDS.items():
                name = f"{what}, {label} attention"
                plain = self._plain(name, image)
                self.arms[name] = within(lambda b=backend: attention_backend(b), plain)

    def _add_compiled(self) -> None:
        compiled = Compiled(self.probe.pipe.transformer)
        for what, image in self._plain_runs().items():
            name = f"{what}, compiled"
            self.arms[name] = within(compiled, self._plain(name, image))
        most = rp.Adaptive.paper(self.layout.reference_tokens).maximum
        align = max(1, most // COMPILED_STAGES)
        for what, arm in ACCELERATED.items():
            name = f"{what}, compiled"
            self.arms[name] = within(compiled, self._accelerated(name, arm, align))

    def _plain_runs(self) -> dict[str, Any]:
        return {"full": self.image, "no reference": None}


def within(context: Callable[[], Any], run: Callable[[], object]) -> Callable[[], object]:
    """The same run, inside a context."""

    def inside() -> object:
        with context():
            return run()

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
            self.transformer.compile_repeated_blocks(**COMPILE_OPTIONS)  # type: ignore[operator]
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
    run_program(main, "runs")
