"""Training of Pocket's IP-Adapter, in slices that resume, and the folder that is shipped."""

from __future__ import annotations

import copy
import dataclasses
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxKontextPipeline
from safetensors.torch import save_file

from recast_probe._utils.provenance import versions
from recast_probe.files.atomic import atomic_folder, write_json
from recast_probe.files.envelope import seal_folder
from recast_probe.pipelines.ip_adapter.loading import WEIGHTS
from recast_probe.pipelines.run_identity import model_fingerprint
from recast_probe.pocket.architecture import PIXELS, pack
from recast_probe.pocket.autoencoder import to_tensor
from recast_probe.pocket.checkpoint import load_checkpoint
from recast_probe.pocket.data import Batch, foreground_share
from recast_probe.pocket.flow import arithmetic
from recast_probe.pocket.held_out_tasks import held_out_tasks
from recast_probe.pocket.optimisers import Optimisers
from recast_probe.pocket.scenes import Task, sample_task
from recast_probe.pocket.subjects import Subject, held_out, load_pack
from recast_probe.pocket.train import Stage, TrainingPlan, drop_captions, fit, part_of

from .architecture import (
    STANDARD,
    AdapterConfig,
    adapter_weights,
    build_image_encoder,
    first_weights,
    with_adapter,
)
from .model import BLOCKS, AdapterModel, WindowPool
from .views import window_pixels

BATCH = 16
KINDS = ("background", "new scene")  # the picture's subject is in the target, as it is
FIRST_SEEN = 48  # tasks whose embeddings are made white before training
HELD_OUT = 48  # tasks that the error is taken on while training goes on
ENCODER = "image_encoder"
TRAINING = "training.json"


def standard_plan(samples: int, seed: int = 0, rate: float = 1.0) -> TrainingPlan:
    """One stage of so many samples; a composed one is drawn about eight times, with new noise."""
    stages = (Stage(PIXELS, samples, BATCH, rate),)
    return TrainingPlan(stages, decay_from=0.6, ema=0.99, reuse=8, capacity=2048, seed=seed)


def picture_task(subjects: Sequence[Subject], rng: np.random.Generator) -> Task:
    """A task in which the picture alone tells what the subject is."""
    nameless = dataclasses.replace(subjects[int(rng.integers(len(subjects)))], name="subject")
    return sample_task(subjects, rng, kind=str(rng.choice(KINDS)), subject=nameless)


def train_adapter(
    training_pack: Path,
    base: FluxKontextPipeline,
    work: Path,
    plan: TrainingPlan,
    *,
    config: AdapterConfig = STANDARD,
    device: str = "cpu",
    precision: torch.dtype | None = None,
    compiled: bool | None = None,
    minutes: float | None = None,
    workers: int = 0,
    checkpoint_every: float = 4.0,
    measure_every: int = 500,
    log: Callable[[str], None] = print,
) -> dict:
    """Train an adapter of `base`, or go on from `work`/checkpoint; export it to `work`/adapter.

    The base stays as it is, apart from the processors of its transformer's attention. What is
    said of `pocket.train.train` about checkpoints, seeds and settings holds here too.

    Args:
        training_pack: `subjects.npz` made by `recast-probe pocket assets`.
        measure_every: steps between two errors on held-out subjects, which the record keeps.

    Raises:
        InputError: the checkpoint is one of another base, of other sizes, or of an earlier version.
        DamagedFileError: the checkpoint is not as it was written.

    Returns the progress record, with `finished` true when the whole plan is done.
    """
    cuda = device.startswith("cuda")
    precision = precision or (torch.bfloat16 if cuda else torch.float32)
    subjects = load_pack(training_pack)
    facts = {
        "base": model_fingerprint(base),
        "adapter": dataclasses.asdict(config),
        "tasks": list(KINDS),
    }
    torch.manual_seed(plan.seed)
    encoder = build_image_encoder(config)
    pipeline = with_adapter(base, encoder, first_weights(base, config)).to(device)
    model = AdapterModel(pipeline)
    rng = np.random.default_rng((plan.seed, FIRST_SEEN))
    first = [picture_task(subjects, rng) for _ in range(FIRST_SEEN)]
    seen = torch.stack([to_tensor(task.reference.render()[0]) for task in first])
    model.whiten(window_pixels(seen).to(device))
    autoencoder: AutoencoderKL = pipeline.vae.eval().requires_grad_(False)
    tasks = held_out_tasks(held_out()[:HELD_OUT], seed=1)
    known = as_batch(tasks, autoencoder, device)

    def pool(index: int, stage: Stage, drawn: int) -> WindowPool:
        return WindowPool(
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
            task=picture_task,
        )

    def loss(_: int, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        drop_captions(batch, generator)
        with arithmetic(device, precision):
            return model.velocity_loss(batch, generator=generator)

    def measure(averages: dict[str, torch.Tensor]) -> dict[str, float]:
        now = copy.deepcopy(model.state_dict())
        model.load_state_dict(averages)
        with torch.no_grad(), arithmetic(device, precision):
            found = held_out_errors(model, known)
        model.load_state_dict(now)
        return found

    def started() -> None:
        if cuda if compiled is None else compiled:
            pipeline.transformer.compile_repeated_blocks()

    progress = fit(
        model,
        Optimisers(model, BLOCKS),
        work / "checkpoint",
        plan,
        pool=pool,
        loss=loss,
        facts=facts,
        started=started,
        measure=measure,
        measure_every=measure_every,
        minutes=minutes,
        checkpoint_every=checkpoint_every,
        log=log,
    )
    progress["finished"] = all(
        count >= stage.samples
        for count, stage in zip(progress["samples"], plan.stages, strict=True)
    )
    tensors, _ = load_checkpoint(work / "checkpoint")
    model.load_state_dict(part_of(tensors, "ema"))
    with atomic_folder(work / "adapter") as fresh:
        pipeline.image_encoder.save_pretrained(fresh / ENCODER)
        weights = {name: value.cpu() for name, value in adapter_weights(pipeline).items()}
        save_file(weights, fresh / WEIGHTS)
        write_json(fresh / TRAINING, progress | {"versions": versions(), "machine": machine()})
        seal_folder(fresh)
    return progress


def as_batch(tasks: Sequence[Task], autoencoder: AutoencoderKL, device: str) -> Batch:
    """Tasks as a `WindowPool` gives them."""
    drawn = [(task.reference.render()[0], *task.target.render()) for task in tasks]
    references, targets = (
        torch.stack([to_tensor(each[place]) for each in drawn]) for place in range(2)
    )
    shares = torch.stack([foreground_share(mask, PIXELS) for _, _, mask in drawn])
    with torch.no_grad():
        pictures = torch.cat([references, targets]).to(device)
        latents = pack(autoencoder.encode(pictures).latent_dist.mean.float())
    given, wanted = latents.chunk(2)
    captions = [task.caption for task in tasks]
    return Batch(given, wanted, shares.to(device), captions, window_pixels(references).to(device))


def held_out_errors(model: AdapterModel, batch: Batch) -> dict[str, float]:
    """The loss on tasks with their own image, without one, and with the next task's image.

    All three share noise, times and guidance.
    """
    shown: torch.Tensor = batch.windows  # type: ignore[assignment]
    other = dataclasses.replace(batch, windows=shown.roll(1, 0))
    arms = {"own image": (batch, True), "no image": (batch, False), "other image": (other, True)}
    found = {}
    for name, (given, with_image) in arms.items():
        generator = torch.Generator().manual_seed(0)
        error = model.velocity_loss(given, generator=generator, with_image=with_image)
        found[name] = float(error)
    return found


def machine() -> dict[str, object]:
    """What the training ran on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
