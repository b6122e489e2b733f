"""Training state on disk: safetensors shards small enough to move between machines."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from recast_probe.errors import InputError
from recast_probe.files.atomic import atomic_folder, previous, write_json
from recast_probe.files.envelope import check_folder, read_json, seal_folder

SHARD_BYTES = 15_000_000


def save_checkpoint(folder: Path, tensors: dict[str, torch.Tensor], progress: dict) -> None:
    """Write shards and `progress.json` beside the old checkpoint, then swap the folders."""
    with atomic_folder(folder) as fresh:
        for number, shard in enumerate(_shards(tensors)):
            save_file(shard, fresh / f"state-{number:02d}.safetensors")
        write_json(fresh / "progress.json", progress)
        seal_folder(fresh)


def find_checkpoint(folder: Path) -> Path | None:
    """Where the latest checkpoint lies, or None where there is none.

    A process that was killed while it swapped the folders leaves the one before, under another
    name.
    """
    return next((each for each in (folder, previous(folder)) if each.is_dir()), None)


def load_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """All tensors and the progress record.

    Raises:
        InputError: no complete checkpoint in that folder, or a damaged one.
    """
    found = find_checkpoint(folder)
    if found is None or not (found / "progress.json").is_file():
        raise InputError(f"No checkpoint in {folder}: it holds no progress.json.")
    check_folder(found)
    tensors: dict[str, torch.Tensor] = {}
    for shard in sorted(found.glob("state-*.safetensors")):
        tensors.update(load_file(shard))
    return tensors, read_json(found / "progress.json")


def read_weights(path: Path, model: nn.Module) -> dict[str, torch.Tensor]:
    """A safetensors file of a model's weights, every name with `model/` before it.

    Raises:
        InputError: not there, no safetensors file, or the weights of another model.
    """
    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"The weights {path} cannot be read: {error}.") from error
    wanted = {f"model/{name}": value for name, value in model.state_dict().items()}
    other = sorted(
        name
        for name in {*wanted, *found}
        if name not in wanted or name not in found or wanted[name].shape != found[name].shape
    )
    if other:
        raise InputError(
            f"The weights {path} are not those of this model: {other[0]!r} is missing, additional "
            f"or of another shape, as are {len(other) - 1} others."
        )
    return {name.removeprefix("model/"): value for name, value in found.items()}


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
