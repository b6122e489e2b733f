"""The whole recipe, one call: tokenizers, autoencoder, flow model, exported pipeline folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

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
    """Train Pocket Kontext in `work`, going on from whatever is there; export to `work/model`.

    Args:
        pack: `subjects.npz` made by `recast-probe pocket assets`.
        minutes: stop the flow training after so many minutes and leave a checkpoint; call again
            to go on. None trains to the end.
        workers: processes that compose scenes; 0 composes in the training process.

    Returns the progress record, with `finished` true when the whole plan is done.
    """
    subjects = load_pack(pack)
    if not (work / "tokenizer_2").is_dir():
        make_tokenizers(_captions(subjects, seed), work)
    if not (work / "autoencoder").is_dir():
        torch.manual_seed(seed)
        autoencoder = build_autoencoder(config)
        train_autoencoder(
            autoencoder, subjects, steps=autoencoder_steps, seed=seed, device=device, log=log
        )
        autoencoder.cpu().save_pretrained(work / "autoencoder")
    autoencoder = AutoencoderKL.from_pretrained(work / "autoencoder", local_files_only=True)
    plan = TrainingPlan.standard(small_samples, full_samples, seed=seed)
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
        log=log,
    )
    export(work / "checkpoint", autoencoder.cpu(), work, work / "model")
    done = all(
        count >= stage.samples
        for count, stage in zip(progress["samples"], plan.stages, strict=True)
    )
    return progress | {"finished": done}


def _captions(subjects: list[Subject], seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    captions = [sample_task(subjects, rng).caption for _ in range(CAPTIONS)]
    return captions + [subject.name for subject in subjects]
