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

from recast_probe.errors import InputError, VerificationError
from recast_probe.files.atomic import atomic_folder
from recast_probe.files.envelope import plain, seal_folder

from . import architecture
from .architecture import STANDARD, TOKEN_PIXELS, PocketConfig
from .checkpoint import find_checkpoint, load_checkpoint, read_weights, save_checkpoint
from .data import Batch, LatentPool
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
    rate follows the share of the plan's work that is done, and the record keeps the plans before.
    What decides the draws stays: seed, pixels, batches, the size of the pool and its reuse.

    Args:
        init: weights to begin with, as `read_weights` takes them; not looked at where there is
            a checkpoint.
        precision: of the matrix products; weights, their averages and the loss are float32.
            Unless given, bfloat16 on CUDA and float32 on a CPU. On a CPU with bfloat16 tiles (AMX)
            bfloat16 is about 1.5 times as fast.
        compiled: compile the blocks; unless given, on CUDA only. On a CPU it needs a C++ compiler.

    Raises:
        InputError: `init` holds no weights of this model, an earlier version wrote the checkpoint,
            or a run with other draws.
        DamagedFileError: the checkpoint is not as it was written.
        VerificationError: as `fit`.
    """
    cuda = device.startswith("cuda")
    precision = precision or (torch.bfloat16 if cuda else torch.float32)
    torch.manual_seed(plan.seed)
    model = FlowModel(config, tokenizers).to(device)
    if init is not None and find_checkpoint(checkpoint) is None:
        model.load_state_dict(read_weights(init, model))
    autoencoder = autoencoder.to(device).eval().requires_grad_(False)
    subjects = load_pack(pack)

    def pool(index: int, stage: Stage, drawn: int) -> LatentPool:
        return LatentPool(
            autoencoder,
            subjects,
            pixels=stage.pixels,
            batch=stage.batch,
            capacity=plan.capacity,
            reuse=plan.reuse,
            seed=(plan.seed, index),
            workers=workers,
            device=device,
            drawn=drawn,
        )

    def loss(_: int, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        drop_captions(batch, generator)
        with_reference = bool(torch.rand(1, generator=generator) >= REFERENCE_DROPOUT)
        with arithmetic(device, precision):
            return model.velocity_loss(batch, with_reference=with_reference, generator=generator)

    def started() -> None:
        if cuda if compiled is None else compiled:
            model.transformer.compile_repeated_blocks()

    return fit(
        model,
        Optimisers(model),
        checkpoint,
        plan,
        pool=pool,
        loss=loss,
        facts={"config": dataclasses.asdict(config)},
        started=started,
        minutes=minutes,
        checkpoint_every=checkpoint_every,
        log=log,
    )


def fit(
    model: nn.Module,
    optimisers: Optimisers,
    checkpoint: Path,
    plan: TrainingPlan,
    *,
    pool: Callable[[int, Stage, int], LatentPool],
    loss: Callable[[int, Batch, torch.Generator], torch.Tensor],
    facts: dict,
    started: Callable[[], None] = lambda: None,
    measure: Callable[[dict[str, torch.Tensor]], dict[str, float]] | None = None,
    measure_every: int = 0,
    minutes: float | None = None,
    checkpoint_every: float = 4.0,
    log: Callable[[str], None] = print,
) -> dict:
    """The loop of a training: draws, steps, averages and checkpoints; see `train`.

    Args:
        model: its state is what a checkpoint holds, with the averages and the optimisers'.
        pool: the batches of a stage, by its place, itself, and the draws that were made.
        loss: by a stage's place, of a batch, with the step's random numbers.
        facts: for the progress record; a checkpoint with others is refused.
        started: called once the weights are those that training goes on from.
        measure: numbers of the averaged weights, by name, taken every `measure_every` steps and
            kept in the progress record under "measured".

    Raises:
        InputError: an earlier version wrote the checkpoint, or a run of other facts or draws.
        DamagedFileError: the checkpoint is not as it was written.
        VerificationError: a loss or a gradient that is not finite; nothing of it is kept.
    """
    ema = {name: value.detach().clone() for name, value in model.state_dict().items()}
    progress: dict = {"samples": [0] * len(plan.stages), "steps": 0, "seconds": 0.0, "loss": None}
    if find_checkpoint(checkpoint) is not None:
        tensors, progress = load_checkpoint(checkpoint)
        if "loss" not in progress:
            raise InputError(
                f"An earlier recast_probe wrote the checkpoint {checkpoint}, without the state of "
                "these optimisers. Remove it, and training begins anew."
            )
        for name, value in plain(facts).items():
            if progress.get(name) != value:
                raise InputError(
                    f"The checkpoint {checkpoint} is of a run with {name} {progress.get(name)!r}, "
                    f"and this one has {value!r}. Name another folder, or remove it."
                )
        _check_goes_on(checkpoint, progress, plan)
        model.load_state_dict(part_of(tensors, "model"))
        ema = {name: part_of(tensors, "ema")[name].to(value) for name, value in ema.items()}
        optimisers.restore(part_of(tensors, "optimiser"))
        # a plan may have more stages than the checkpoint, or fewer of those that have not begun
        stages = len(plan.stages)
        progress["samples"] = (progress["samples"] + [0] * stages)[:stages]
        log(f"resumed at step {progress['steps']}")
    started()
    begun = saved = time.monotonic()
    before = progress["seconds"]
    if "plan" in progress and progress["plan"] != plain(dataclasses.asdict(plan)):
        before_now = {"samples": [*progress["samples"]], "plan": progress["plan"]}
        progress["plans_before"] = [*progress.get("plans_before", []), before_now]
    progress |= {"plan": dataclasses.asdict(plan), **facts}

    def save() -> None:
        progress["seconds"] = before + time.monotonic() - begun
        parts = {"model": model.state_dict(), "ema": ema, "optimiser": optimisers.state()}
        tensors = {
            f"{part}/{name}": t for part, state in parts.items() for name, t in state.items()
        }
        save_checkpoint(checkpoint, tensors, progress)

    for index, stage in enumerate(plan.stages):
        if progress["samples"][index] >= stage.samples:
            continue
        batches = pool(index, stage, progress["samples"][index] // stage.batch)
        while progress["samples"][index] < stage.samples:
            if minutes is not None and time.monotonic() - begun > 60 * minutes:
                save()
                return progress
            share = learning_rate_share(plan, progress["samples"])
            error = loss(index, batches.draw(), _generator(plan.seed, progress["steps"]))
            error.backward()
            size = nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
            seen, smoothed = error.item(), progress["loss"]
            if not math.isfinite(seen) or not math.isfinite(size):
                raise VerificationError(
                    f"Training went wrong in step {progress['steps']}: its loss is {seen:g} and "
                    f"the length of its gradient {size:g}. The checkpoint before it is as it was; "
                    "try a lower rate or float32."
                )
            optimisers.step(plan.learning_rate * stage.rate * share)
            progress["steps"] += 1
            progress["samples"][index] += stage.batch
            _update(ema, model, min(plan.ema, progress["steps"] / (progress["steps"] + 10)))
            progress["loss"] = seen if smoothed is None else 0.98 * smoothed + 0.02 * seen
            if progress["steps"] % 50 == 0:
                log(
                    f"{stage.pixels} px, {progress['samples'][index]}/{stage.samples} samples, "
                    f"loss {progress['loss']:.4f}, {time.monotonic() - begun:.0f} s"
                )
            if measure is not None and progress["steps"] % measure_every == 0:
                found = {"samples": sum(progress["samples"]), **measure(ema)}
                progress["measured"] = [*progress.get("measured", []), found]
                log(", ".join(f"{name} {value:.4g}" for name, value in found.items()))
            if time.monotonic() - saved > 60 * checkpoint_every:
                save()
                saved = time.monotonic()
    save()
    return progress


def _check_goes_on(checkpoint: Path, progress: dict, plan: TrainingPlan) -> None:
    """What decides the draws that a checkpoint has seen must be the plan's as well.

    Raises:
        InputError: another seed or pool, a stage less, or another size of pictures or batches in a
            stage that has begun.
    """
    earlier = progress["plan"]
    if any(progress["samples"][len(plan.stages) :]):
        raise InputError(
            f"The checkpoint {checkpoint} is of a run with {len(progress['samples'])} stages, and "
            f"this one has {len(plan.stages)}. Name another folder, or remove it."
        )
    decisive = ("seed", "reuse", "capacity")
    pairs: list[tuple[str, int, int]] = [(n, earlier[n], getattr(plan, n)) for n in decisive]
    begun = zip(progress["samples"], earlier["stages"], plan.stages, strict=False)
    for number, (drawn, before, stage) in enumerate(begun):
        if drawn:
            pairs += [
                (f"{name} in stage {number}", before[name], getattr(stage, name))
                for name in ("pixels", "batch")
            ]
    for name, was, now in pairs:
        if was != now:
            raise InputError(
                f"The checkpoint {checkpoint} is of a run with {name} {was}, and this one has "
                f"{now}. Give {was}, name another folder, or remove it."
            )


def drop_captions(batch: Batch, generator: torch.Generator) -> None:
    """Replace about 5 % of the captions by empty ones."""
    dropped = torch.rand(len(batch.captions), generator=generator) < CAPTION_DROPOUT
    batch.captions = ["" if d else c for d, c in zip(dropped, batch.captions, strict=True)]


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
    model.load_state_dict(part_of(tensors, "ema"))
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


def part_of(tensors: dict[str, torch.Tensor], part: str) -> dict[str, torch.Tensor]:
    """Those whose names begin with the part's, without it."""
    start = f"{part}/"
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def _generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step."""
    mixed = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> np.uint64(1)))
