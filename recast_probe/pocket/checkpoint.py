"""Training state on disk: safetensors shards small enough to move between machines."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from recast_probe.errors import InputError

SHARD_BYTES = 15_000_000


def save_checkpoint(folder: Path, tensors: dict[str, torch.Tensor], progress: dict) -> None:
    """Write shards and `progress.json` beside the old checkpoint, then swap the folders."""
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for number, shard in enumerate(_shards(tensors)):
        save_file(shard, fresh / f"state-{number:02d}.safetensors")
    (fresh / "progress.json").write_text(json.dumps(progress, indent=1))
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """All tensors and the progress record.

    Raises:
        InputError: no complete checkpoint in that folder.
    """
    if not (folder / "progress.json").is_file():
        raise InputError(f"No checkpoint in {folder}: it holds no progress.json.")
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(folder.glob("state-*.safetensors")):
        tensors.update(load_file(shard))
    return tensors, json.loads((folder / "progress.json").read_text())


def _shards(tensors: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    shards: list[dict[str, torch.Tensor]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if filled + size > SHARD_BYTES and shards[-1]:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor.detach().cpu().clone()
        filled += size
    return shards
