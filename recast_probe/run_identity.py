"""What decides the images of a pipeline, as it is now: one definition for stores and provenance.

Weights are read whole at every call, and nothing is remembered from an earlier one: whoever writes
into a weight, sets the scale of an adapter or puts in another scheduler has another pipeline.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch

from recast_probe.content import Contents, NoContent, described, name_of
from recast_probe.errors import InputError
from recast_probe.module_content import ModuleContents
from recast_probe.provenance import attention_backend



def model_fingerprint(pipeline: Any) -> str:
    """SHA-256 (hexadecimal) over names, shapes, dtypes and all numbers of the weights and buffers
    of all parts.

    Every number enters, on the device where it lies: about the time of two passes over the memory.
    Tensor subclasses (quantised weights) enter through the tensors that they are made of, offloaded
    weights from where they are kept.

    Raises:
        InputError: a weight whose numbers cannot be had; the message names it.
    """
    return ModuleContents(Contents(), _modules(pipeline)).weights().hex()


def pipeline_identity(pipeline: Any) -> dict[str, Any]:
    """Everything of a pipeline that decides its images, ready for JSON.

    Returns:
        "pipeline": its class; "weights": ``model_fingerprint``; "adapters": by part, the scale of
        each LoRA adapter in use, and what IP-Adapters are scaled by; "scheduler": class and config;
        "attention": processors and backend; "parts": by name, a digest of what each part is beyond
        its weights (class, code, attributes, hooks, config, vocabulary); "device" and "autocast".

    Raises:
        InputError: something in it has no content; the message names it.
    """
    modules = _modules(pipeline)
    contents = Contents()
    found = ModuleContents(contents, modules)
    weights = found.weights().hex()
    parts: dict[str, str] = {}
    for name, part in sorted(pipeline.components.items()):
        if part is None or name == "scheduler":
            continue
        try:
            state = found.state(name) if name in modules else part
            parts[name] = contents.named(name, {"": state, "config": _config(part)}).hex()
        except NoContent as error:
            raise InputError(
                f"The part {name} of the pipeline cannot be told from another one by its content "
                f"({error}), so results of it cannot be vouched for. Take off what was hung on it."
            ) from error
    own = {
        name: value
        for name, value in vars(pipeline).items()
        if not name.startswith("_") and name not in pipeline.components
    }
    parts["pipeline"] = contents.named("pipeline", {**_config(pipeline), **_simple(own)}).hex()
    transformer = modules.get("transformer")
    device = torch.device(getattr(pipeline, "_execution_device", None) or pipeline.device).type
    return {
        "pipeline": type(pipeline).__name__,
        "weights": weights,
        "adapters": {name: each for name in modules if (each := _adapters(modules[name]))},
        "scheduler": _scheduler(pipeline),
        "attention": {} if transformer is None else _attention(transformer),
        "parts": parts,
        "device": device,
        "autocast": str(torch.get_autocast_dtype(device)).removeprefix("torch.")
        if torch.is_autocast_enabled(device)
        else None,
    }


def identity_digest(identity: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) of ``pipeline_identity``."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _modules(pipeline: Any) -> dict[str, torch.nn.Module]:
    return {
        name: part
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
    }


def _scheduler(pipeline: Any) -> dict[str, Any] | None:
    scheduler = pipeline.components.get("scheduler")
    if scheduler is None:
        return None
    contents = Contents()
    return {
        "class": name_of(type(scheduler)),
        "code": contents.class_(type(scheduler)).hex(),
        "config": {
            name: described(value)
            for name, value in sorted(scheduler.config.items())
            if not name.startswith("_")
        },
    }


def _config(part: Any) -> dict[str, Any]:
    """The config that diffusers keeps for a part, without where it came from."""
    config = getattr(part, "config", None)
    if not isinstance(config, Mapping):
        return {}
    return {f"config {k}": v for k, v in config.items() if not str(k).startswith("_")}


def _simple(values: Mapping[str, Any]) -> dict[str, Any]:
    simple = (bool, int, float, str, type(None), tuple, list, dict)
    return {name: value for name, value in values.items() if isinstance(value, simple)}


def _attention(transformer: torch.nn.Module) -> dict[str, Any]:
    """How often each class of processor stands in the transformer, and the backend."""
    processors = [
        name_of(type(module.processor))
        for module in transformer.modules()
        if getattr(module, "processor", None) is not None
    ]
    counted = {name: processors.count(name) for name in sorted(set(processors))}
    return {"backend": attention_backend(transformer), "processors": counted}


def _adapters(module: torch.nn.Module) -> dict[str, Any]:
    """By adapter, the scales that its layers have; "off" where it is switched off."""
    found: dict[str, set[Any]] = {}
    for part in module.modules():
        scaling = getattr(part, "scaling", None)
        if isinstance(scaling, dict) and hasattr(part, "active_adapters"):
            active = () if getattr(part, "disable_adapters", False) else part.active_adapters
            for name, scale in scaling.items():
                found.setdefault(name, set()).add(float(scale) if name in active else "off")
        processor = getattr(part, "processor", None)
        scale = getattr(processor, "scale", None)
        if scale is not None and hasattr(processor, "to_k_ip"):
            found.setdefault("ip-adapter", set()).add(json.dumps(described(scale)))
    return {name: sorted(scales, key=str) for name, scales in sorted(found.items())}
