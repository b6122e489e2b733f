"""A model's folder: weights and configs, damaged or missing."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from recast_probe.cost_model.published_configs import config_from_dict
from recast_probe.pipelines.loading import load_pipeline
from recast_probe.pipelines.run_identity import model_fingerprint
from tests.fuzz.damage import edited, flipped
from tests.fuzz.harness import FuzzClass


def _prepare(folder: Path, base: Path) -> dict[str, Any]:
    whole = base / "model"
    pipeline = load_pipeline(whole)
    return {
        "whole": whole,
        "folder": folder / "model",
        "state": _state(pipeline),
        "fingerprint": model_fingerprint(pipeline),
    }


def _state(pipeline: Any) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": value
        for part, module in pipeline.components.items()
        if isinstance(module, torch.nn.Module)
        for name, value in module.state_dict().items()
    }


def weights(rng: random.Random, state: dict[str, Any]) -> str:
    """A tensor missing, misnamed or turned over: refused, or told by the fingerprint."""
    shutil.rmtree(state["folder"], ignore_errors=True)
    shutil.copytree(state["whole"], state["folder"])
    path = rng.choice(sorted(state["folder"].rglob("*.safetensors")))
    data = path.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    way = rng.randrange(5)
    if way == 0:
        path.write_bytes(data[:header] + flipped(data[header:], rng, 1))
    elif way == 1:
        path.write_bytes(flipped(data[:header], rng, 2) + data[header:])
    elif way == 2:
        path.write_bytes(data[: rng.randrange(len(data))])
    else:
        tensors = load_file(path)
        name = rng.choice(sorted(tensors))
        value = tensors.pop(name)
        if way == 4:
            tensors[f"{name}s"] = value
        save_file(tensors, path, {"format": "pt"})
    pipeline = load_pipeline(state["folder"])
    found, told = _state(pipeline), model_fingerprint(pipeline) != state["fingerprint"]
    same = set(found) == set(state["state"]) and all(
        found[name].shape == value.shape
        and found[name].dtype == value.dtype
        and torch.equal(found[name].view(torch.uint8), value.view(torch.uint8))
        for name, value in state["state"].items()
        if value.ndim
    )
    if same:
        return "right"
    if way >= 3:
        return "SILENT: a missing weight is random"
    return "accepted" if told else "SILENT: other weights of the same fingerprint"


def config(rng: random.Random, state: dict[str, Any]) -> str:
    """A config with an odd value, read for its numbers or with the weights."""
    path = state["whole"] / "transformer" / "config.json"
    values = edited(json.loads(path.read_text()), rng)
    if rng.random() < 0.9:
        # as the command line reads it, which checks that it is an object
        config_from_dict(values if isinstance(values, dict) else {})
        return "accepted"
    shutil.rmtree(state["folder"], ignore_errors=True)
    shutil.copytree(state["whole"], state["folder"])
    (state["folder"] / "transformer" / "config.json").write_text(json.dumps(values))
    load_pipeline(state["folder"])
    return "accepted"


CLASSES = (
    FuzzClass("models, weights", weights, _prepare, 80),
    FuzzClass("models, configs", config, _prepare, 200),
)
