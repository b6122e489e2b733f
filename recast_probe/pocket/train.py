"""Flow-matching training of Pocket Kontext, in stages and in slices that resume."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import nn

from recast_probe.files.atomic import atomic_folder
from recast_probe.files.envelope import seal_folder

from . import architecture
from .architecture import STANDARD, TOKEN_PIXELS, PocketConfig
from .checkpoint import find_checkpoint, load_checkpoint, save_checkpoint
from .data import LatentPool
from .flow import FlowModel, arithmetic
from .subjects import load_pack

REFERENCE_DROPOUT = 0.08
CAPTION_DROPOUT = 0.05


@dataclass(frozen=True)
class Stage:
    """`samples` drawn at `pixels` x `pixels` in batches of `batch`."""

    pixels: int
    samples: int
    batch: int


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that decides a training run."""

    stages: tuple[Stage, ...]
    learning_rate: float = 1.5e-3
    warm_up: float = 0.03
    decay_from: float = 0.5
    ema: float = 0.995
    reuse: int = 4
    capacity: int = 4096
    seed: int = 0

    @classmethod
    def standard(cls, small: int, full: int, seed: int = 0) -> TrainingPlan:
        """`small` samples at 64 pixels (64 + 64 tokens), then `full` at 128 (256 + 256)."""
        return cls((Stage(64, small, 32), Stage(128, full, 16)), seed=seed)


def train(
    pack: Path,
    autoencoder: AutoencoderKL,
    tokenizers: Path,
    checkpoint: Path,
    plan: TrainingPlan,
    *,
    config: PocketConfig = STANDARD,
    device: str = "cpu",
    precision: torch.dtype | None = None,
    compiled: bool | None = None,
    minutes: float | None = None,
    workers: int = 0,
    checkpoint_every: float = 4.0,
    log: Callable[[str], None] = print,
) -> dict:
    """Train, or go on from `checkpoint`, for at most `minutes`; returns the progress record.

    A checkpoint is written every `checkpoint_every` minutes and at the end. The plan may be
    longer or shorter than the one a checkpoint began with: the learning rate follows the share
    of the plan's work that is done.

    Args:
        precision: of the matrix products; weights, their averages and the loss are float32.
            Unless given, bfloat16 on CUDA and float32 on a CPU. On a CPU with bfloat16 tiles (AMX)
            bfloat16 is about 1.5 times as fast.
        compiled: compile the blocks; unless given, on CUDA only. On a CPU it needs a C++ compiler.
    """
    cuda = device.startswith("cuda")
    precision = precision or (torch.bfloat16 if cuda else torch.float32)
    model = FlowModel(config, tokenizers).to(device)
    ema = {name: value.detach().clone() for name, value in model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.parameters(), plan.learning_rate, weight_decay=0.01)
    progress: dict = {"samples": [0] * len(plan.stages), "steps": 0, "seconds": 0.0}
    if find_checkpoint(checkpoint) is not None:
        tensors, progress = load_checkpoint(checkpoint)
        _restore(model, ema, optimiser, tensors, progress["steps"])
        # a plan may have grown by a stage since the checkpoint was written
        progress["samples"] += [0] * (len(plan.stages) - len(progress["samples"]))
        log(f"resumed at step {progress['steps']}")
    if cuda if compiled is None else compiled:
        model.transformer.compile_repeated_blocks()
    autoencoder = autoencoder.to(device).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(plan.seed + progress["steps"])
    subjects = load_pack(pack)
    started = saved = time.monotonic()
    before = progress["seconds"]
    progress |= {"plan": dataclasses.asdict(plan), "config": dataclasses.asdict(config)}
    smoothed = None

    def save() -> None:
        progress["seconds"] = before + time.monotonic() - started
        save_checkpoint(checkpoint, _gather(model, ema, optimiser), progress)

    for index, stage in enumerate(plan.stages):
        if progress["samples"][index] >= stage.samples:
            continue
        pool = LatentPool(
            autoencoder,
            subjects,
            pixels=stage.pixels,
            batch=stage.batch,
            capacity=plan.capacity,
            reuse=plan.reuse,
            seed=plan.seed + 1000 * index + progress["steps"],
            workers=workers,
            device=device,
        )
        while progress["samples"][index] < stage.samples:
            if minutes is not None and time.monotonic() - started > 60 * minutes:
                save()
                return progress
            for group in optimiser.param_groups:
                group["lr"] = plan.learning_rate * learning_rate_share(plan, progress["samples"])
            batch = pool.draw()
            dropped = torch.rand(stage.batch, generator=generator) < CAPTION_DROPOUT
            batch.captions = ["" if d else c for d, c in zip(dropped, batch.captions, strict=True)]
            with_reference = bool(torch.rand(1, generator=generator) >= REFERENCE_DROPOUT)
            with arithmetic(device, precision):
                loss = model.velocity_loss(
                    batch, with_reference=with_reference, generator=generator
                )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            progress["steps"] += 1
            progress["samples"][index] += stage.batch
            _update(ema, model, min(plan.ema, progress["steps"] / (progress["steps"] + 10)))
            smoothed = loss.item() if smoothed is None else 0.98 * smoothed + 0.02 * loss.item()
            if progress["steps"] % 50 == 0:
                log(
                    f"{stage.pixels} px, {progress['samples'][index]}/{stage.samples} samples, "
                    f"loss {smoothed:.4f}, {time.monotonic() - started:.0f} s"
                )
            if time.monotonic() - saved > 60 * checkpoint_every:
                save()
                saved = time.monotonic()
    save()
    return progress


def learning_rate_share(plan: TrainingPlan, samples: list[int]) -> float:
    """Share of the peak learning rate: short warm-up, plateau, then a cosine to zero.

    Progress is measured in tokens, so that both grids count by their size.
    """
    weights = [(stage.pixels // TOKEN_PIXELS) ** 2 for stage in plan.stages]
    total = sum(w * stage.samples for w, stage in zip(weights, plan.stages, strict=True))
    done = sum(w * count for w, count in zip(weights, samples, strict=True)) / total
    if done < plan.warm_up:
        return max(done / plan.warm_up, 0.02)
    if done < plan.decay_from:
        return 1.0
    rest = min(1.0, (done - plan.decay_from) / (1 - plan.decay_from))
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * rest))


def export(checkpoint: Path, autoencoder: AutoencoderKL, tokenizers: Path, out: Path) -> None:
    """Write the averaged weights as a pipeline folder that plain diffusers loads."""
    tensors, progress = load_checkpoint(checkpoint)
    settings: dict = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in progress["config"].items()
    }
    model = FlowModel(PocketConfig(**settings), tokenizers)
    state = {n.removeprefix("ema/"): t for n, t in tensors.items() if n.startswith("ema/")}
    model.load_state_dict(state)
    # a loaded autoencoder remembers its folder and would write that path into the config
    clean = AutoencoderKL.from_config(
        {name: value for name, value in autoencoder.config.items() if not name.startswith("_")}
    )
    clean.load_state_dict(autoencoder.state_dict())
    pipeline = architecture.assemble(clean, model.transformer, model.clip, model.t5, tokenizers)
    with atomic_folder(out) as fresh:
        pipeline.save_pretrained(fresh)
        seal_folder(fresh)


@torch.no_grad()
def _update(ema: dict[str, torch.Tensor], model: nn.Module, decay: float) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            ema[name].lerp_(value, 1 - decay)


def _gather(
    model: nn.Module, ema: dict[str, torch.Tensor], optimiser: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"ema/{name}": value for name, value in ema.items()}
    for name, parameter in model.named_parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            if parameter in optimiser.state:
                value = optimiser.state[parameter][moment]
                tensors[f"{moment}/{name}"] = value.to(torch.bfloat16)
    return tensors


def _restore(
    model: nn.Module,
    ema: dict[str, torch.Tensor],
    optimiser: torch.optim.Optimizer,
    tensors: dict[str, torch.Tensor],
    steps: int,
) -> None:
    model.load_state_dict(
        {n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")}
    )
    for name in ema:
        ema[name].copy_(tensors[f"ema/{name}"])
    for name, parameter in model.named_parameters():
        if f"exp_avg/{name}" in tensors:
            optimiser.state[parameter] = {
                "step": torch.tensor(float(steps)),
                **{
                    moment: tensors[f"{moment}/{name}"].to(parameter)
                    for moment in ("exp_avg", "exp_avg_sq")
                },
            }
