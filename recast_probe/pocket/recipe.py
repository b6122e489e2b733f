"""The whole recipe, one call: tokenizers, autoencoder, flow model, exported pipeline folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from recast_probe.files.atomic import atomic_folder
from recast_probe.files.envelope import check_folder, seal_folder
from recast_probe.pocket import folder

from .architecture import STANDARD, PocketConfig, build_autoencoder
from .autoencoder import train_autoencoder
from .scenes import sample_task
from .subjects import Subject, load_pack
from .text import make_tokenizers
from .train import TrainingPlan, export, train

CAPTIONS = 12_000


def run(
    pack: Path,
    work: Path,
    *,
    small_samples: int,
    full_samples: int,
    init: Path | None = None,
    rate: float = 1.0,
    autoencoder_steps: int = 4400,
    config: PocketConfig = STANDARD,
    device: str = "cpu",
    precision: torch.dtype | None = None,
    compiled: bool | None = None,
    minutes: float | None = None,
    workers: int = 0,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> dict:
    """Train Pocket Kontext in `work`, resuming from whatever is there; export to `work/model`.

    Args:
        pack: `subjects.npz` made by `recast-probe pocket assets`.
        init: weights to begin with, averaged ones of an earlier run: a safetensors file of a
            `FlowModel`'s weights, every name with `model/` before it. Tokenizers and autoencoder
            are then those of the shipped model, which the weights were trained with.
        rate: scales the learning rates; trained weights go on at less than 1.
        minutes: stop the flow training after so many minutes and leave a checkpoint; call again
            to go on. None trains to the end.
        workers: processes that compose scenes; 0 composes in the training process.

    Raises:
        InputError: `init` holds no weights of this model.
        DamagedFileError: a folder in `work` that is not as it was left.

    Returns the progress record, with `finished` true when the whole plan is done.
    """
    subjects = load_pack(pack)
    if init is not None:
        _take_shipped(work)
    made = {name: _is_made(work / name) for name in ("tokenizer", "tokenizer_2", "autoencoder")}
    if not (made["tokenizer"] and made["tokenizer_2"]):
        make_tokenizers(_captions(subjects, seed), work)
    if not made["autoencoder"]:
        torch.manual_seed(seed)
        autoencoder = build_autoencoder(config)
        train_autoencoder(
            autoencoder, subjects, steps=autoencoder_steps, seed=seed, device=device, log=log
        )
        with atomic_folder(work / "autoencoder") as fresh:
            autoencoder.cpu().save_pretrained(fresh)
            seal_folder(fresh)
    autoencoder = AutoencoderKL.from_pretrained(work / "autoencoder", local_files_only=True)
    plan = TrainingPlan.standard(small_samples, full_samples, seed=seed, rate=rate)
    progress = train(
        pack,
        autoencoder,
        work,
        work / "checkpoint",
        plan,
        config=config,
        device=device,
        precision=precision,
        compiled=compiled,
        minutes=minutes,
        workers=workers,
        init=init,
        log=log,
    )
    export(work / "checkpoint", autoencoder.cpu(), work, work / "model")
    done = all(
        count >= stage.samples
        for count, stage in zip(progress["samples"], plan.stages, strict=True)
    )
    return progress | {"finished": done}


def _take_shipped(work: Path) -> None:
    """Copy the shipped tokenizers and autoencoder to `work`, where it has none yet."""
    check_folder(folder())
    parts = {"tokenizer": "tokenizer", "tokenizer_2": "tokenizer_2", "vae": "autoencoder"}
    for part, name in parts.items():
        if not (work / name).is_dir():
            with atomic_folder(work / name) as fresh:
                shutil.copytree(folder() / part, fresh, dirs_exist_ok=True)
                seal_folder(fresh)


def _is_made(made: Path) -> bool:
    """Whether an earlier call made this folder; it must be as that call left it."""
    if not made.is_dir():
        return False
    check_folder(made)
    return True


def _captions(subjects: list[Subject], seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    captions = [sample_task(subjects, rng).caption for _ in range(CAPTIONS)]
    return captions + [subject.name for subject in subjects]
