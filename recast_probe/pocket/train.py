"""Flow-matching training of Pocket Kontext, in stages and in slices that resume."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn

from recast_probe.errors import InputError
from recast_probe.files.atomic import atomic_folder
from recast_probe.files.envelope import seal_folder

from . import architecture
from .architecture import STANDARD, TOKEN_PIXELS, PocketConfig
from .checkpoint import find_checkpoint, load_checkpoint, read_weights, save_checkpoint
from .data import LatentPool
from .flow import FlowModel, arithmetic
from .optimisers import Optimisers
from .subjects import load_pack

REFERENCE_DROPOUT = 0.08
CAPTION_DROPOUT = 0.05


@dataclass(frozen=True)
class Stage:
    """`samples` drawn at `pixels` x `pixels` in batches of `batch`.

    `rate` scales the learning rates of both optimisers.
    """

    pixels: int
    samples: int
    batch: int
    rate: float = 1.0


@dataclass(frozen=True)
class TrainingPlan:
    """All that decides a training run; `learning_rate` is AdamW's, Muon's is ten times it."""

    stages: tuple[Stage, ...]
    learning_rate: float = 1e-3
    warm_up: float = 0.03
    decay_from: float = 0.5
    ema: float = 0.998
    reuse: int = 4
    capacity: int = 1024
    seed: int = 0

    @classmethod
    def standard(cls, small: int, full: int, seed: int = 0, rate: float = 1.0) -> TrainingPlan:
        """`small` samples at 64 pixels (64 + 64 tokens), then `full` at 128 (256 + 256)."""
        return cls(
            (Stage(64, small, 32, rate), Stage(128, full, 16, 0.75 * rate)),
            decay_from=0.5 if small else 0.2,
            seed=seed,
        )


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
    init: Path | None = None,
    log: Callable[[str], None] = print,
) -> dict:
    """Train, or resume from `checkpoint`, for at most `minutes`; returns the progress record.

    A checkpoint is written every `checkpoint_every` minutes and at the end. It holds everything
    that the next step needs, and every step's randomness is decided by the seed and the step's
    number: on a CPU a run that was stopped gives the same weights, to the last bit, as one that
    was not. The plan may be longer or shorter than the one a checkpoint began with: the learning
    rate follows the share of the plan's work that is done.

    Args:
        init: weights to begin with, as `read_weights` takes them; not looked at where there is
            a checkpoint.
        precision: of the matrix products; weights, their averages and the loss are float32.
            Unless given, bfloat16 on CUDA and float32 on a CPU. On a CPU with bfloat16 tiles (AMX)
            bfloat16 is about 1.5 times as fast.
        compiled: compile the blocks; unless given, on CUDA only. On a CPU it needs a C++ compiler.

    Raises:
        InputError: `init` holds no weights of this model, or an earlier version wrote the
            checkpoint.
        DamagedFileError: the checkpoint is not as it was written.
    """
    cuda = device.startswith("cuda")
    precision = precision or (torch.bfloat16 if cuda else torch.float32)
    torch.manual_seed(plan.seed)
    model = FlowModel(config, tokenizers).to(device)
    if init is not None:
        model.load_state_dict(read_weights(init, model))
    ema = {name: value.detach().clone() for name, value in model.state_dict().items()}
    optimisers = Optimisers(model)
    progress: dict = {"samples": [0] * len(plan.stages), "steps": 0, "seconds": 0.0, "loss": None}
    if find_checkpoint(checkpoint) is not None:
        tensors, progress = load_checkpoint(checkpoint)
        if "loss" not in progress:
            raise InputError(
                f"An earlier recast_probe wrote the checkpoint {checkpoint}, without the state of "
                "these optimisers. Remove it, and training begins anew."
            )
        model.load_state_dict(_part(tensors, "model"))
        ema = {name: value.to(device) for name, value in _part(tensors, "ema").items()}
        optimisers.restore(_part(tensors, "optimiser"))
        # a plan may have grown by a stage since the checkpoint was written
        progress["samples"] += [0] * (len(plan.stages) - len(progress["samples"]))
        log(f"resumed at step {progress['steps']}")
    if cuda if compiled is None else compiled:
        model.transformer.compile_repeated_blocks()
    autoencoder = autoencoder.to(device).eval().requires_grad_(False)
    subjects = load_pack(pack)
    started = saved = time.monotonic()
    before = progress["seconds"]
    progress |= {"plan": dataclasses.asdict(plan), "config": dataclasses.asdict(config)}

    def save() -> None:
        progress["seconds"] = before + time.monotonic() - started
        parts = {"model": model.state_dict(), "ema": ema, "optimiser": optimisers.state()}
        tensors = {
            f"{part}/{name}": t for part, state in parts.items() for name, t in state.items()
        }
        save_checkpoint(checkpoint, tensors, progress)

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
            seed=(plan.seed, index),
            workers=workers,
            device=device,
            drawn=progress["samples"][index] // stage.batch,
        )
        while progress["samples"][index] < stage.samples:
            if minutes is not None and time.monotonic() - started > 60 * minutes:
                save()
                return progress
            share = learning_rate_share(plan, progress["samples"])
            generator = _generator(plan.seed, progress["steps"])
            batch = pool.draw()
            dropped = torch.rand(stage.batch, generator=generator) < CAPTION_DROPOUT
            batch.captions = ["" if d else c for d, c in zip(dropped, batch.captions, strict=True)]
            with_reference = bool(torch.rand(1, generator=generator) >= REFERENCE_DROPOUT)
            with arithmetic(device, precision):
                loss = model.velocity_loss(
                    batch, with_reference=with_reference, generator=generator
                )
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimisers.step(plan.learning_rate * stage.rate * share)
            progress["steps"] += 1
            progress["samples"][index] += stage.batch
            _update(ema, model, min(plan.ema, progress["steps"] / (progress["steps"] + 10)))
            seen, smoothed = loss.item(), progress["loss"]
            progress["loss"] = seen if smoothed is None else 0.98 * smoothed + 0.02 * seen
            if progress["steps"] % 50 == 0:
                log(
                    f"{stage.pixels} px, {progress['samples'][index]}/{stage.samples} samples, "
                    f"loss {progress['loss']:.4f}, {time.monotonic() - started:.0f} s"
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
    model.load_state_dict(_part(tensors, "ema"))
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


def _part(tensors: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    """Those whose names begin with the part's, without it."""
    start = f"{part}/"
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def _generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step."""
    mixed = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))
