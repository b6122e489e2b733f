"""What decides the images of a pipeline, as it is now: one definition for stores and provenance.

Weights are read whole at every call, and nothing is remembered from an earlier one: whoever writes
into a weight, sets the scale of an adapter or puts in another scheduler has another pipeline.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from recast_probe._utils.compat import execution_device, forward_hooks_everywhere
from recast_probe._utils.provenance import attention_backend
from recast_probe.content.class_digest import name_of
from recast_probe.content.code_digest import names_set_in
from recast_probe.content.description import described
from recast_probe.content.digest import Contents, NoContent
from recast_probe.content.module_content import BOOKKEEPING, ModuleContents, own_config
from recast_probe.errors import InputError
from recast_probe.pipelines.one_run import between_runs, in_a_run

# what a pipeline calls of its scheduler; what a user's other methods set is a setting
_IN_A_RUN = frozenset(
    (
        "add_noise",
        "add_noise_to_input",
        "batch_step_no_noise",
        "convert_model_output",
        "dpm_solver_first_order_update",
        "index_for_timestep",
        "scale_model_input",
        "scale_noise",
        "set_begin_index",
        "set_sigmas",
        "set_timesteps",
        "step",
        "step_correct",
        "step_pred",
        "undo_step",
    )
)


def model_fingerprint(pipeline: Any) -> str:
    """SHA-256 (hexadecimal) over names, shapes, dtypes and all numbers of the weights and buffers
    of all parts.

    Every number enters, on the device where it lies: about the time of two passes over the memory.
    Tensor subclasses (quantised weights) enter through the tensors that they are made of, offloaded
    weights from where they are kept.

    Raises:
        InputError: a weight whose numbers cannot be had; the message names it.
    """
    with between_runs():
        return ModuleContents(Contents(), _modules(pipeline)).weights().hex()


def pipeline_identity(pipeline: Any, *, strict: bool = False) -> dict[str, Any]:
    """Everything of a pipeline that decides its images, ready for JSON.

    Args:
        strict: refuse a part that has no content, as needed where results are stored; else its
            entry in "parts" says so as text.

    Returns:
        "pipeline": its class; "fingerprint": ``model_fingerprint``; "adapters": by part, the scales
        of each LoRA adapter, "off" where it is not in use, and what IP-Adapters are scaled by;
        "scheduler": class and config; "attention": processors and backend; "parts": by name, a
        digest of what each part is beyond its weights (class, code, attributes, hooks, config,
        vocabulary); "device" and "autocast".

    Raises:
        InputError: see ``strict``; also a weight whose numbers cannot be had; the message names it.
            Also this thread is in an observed run of the pipeline.
    """
    with between_runs():
        if in_a_run(pipeline):
            raise InputError(
                "The pipeline is in an observed run, whose hooks would count as its own; ask for "
                "its identity before the run or after it."
            )
        return _identity(pipeline, strict)


def _identity(pipeline: Any, strict: bool) -> dict[str, Any]:
    modules, contents = _modules(pipeline), Contents()
    found = ModuleContents(contents, modules)
    states: dict[str, Any] = {"pipeline": _pipeline_state(pipeline)}
    for name, part in pipeline.components.items():
        state = found.state(name) if name in modules else _without_weights(part)
        states[name] = {"": state, "config": _config(part)}
    parts: dict[str, str] = {}
    for name, state in sorted(states.items()):
        try:
            parts[name] = contents.named(name, state).hex()
        except NoContent as error:
            if strict:
                raise InputError(
                    f"The part {name} of the pipeline cannot be told from another one by its "
                    f"content ({error}), so results of it cannot be stored. Take off what was hung "
                    "on it, or run without a folder."
                ) from error
            parts[name] = f"without content: {error}"
    transformer = modules.get("transformer")
    device = execution_device(pipeline).type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return {
        "pipeline": type(pipeline).__name__,
        "fingerprint": found.weights().hex(),
        "adapters": {name: each for name in modules if (each := _adapters(modules[name]))},
        "scheduler": _scheduler(pipeline),
        "attention": {} if transformer is None else _attention(transformer),
        "parts": parts,
        "device": device,
        "autocast": None if autocast is None else str(autocast).removeprefix("torch."),
    }


def _modules(pipeline: Any) -> dict[str, torch.nn.Module]:
    return {
        name: part
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
    }


def _pipeline_state(pipeline: Any) -> dict[str, Any]:
    """What belongs to no part: settings and tools of the pipeline, replaced methods, its config,
    and hooks on all modules there are."""
    own = {
        name: value
        for name, value in vars(pipeline).items()
        if name not in pipeline.components and (not name.startswith("_") or callable(value))
    }
    hooks = [list(each.values()) for each in forward_hooks_everywhere()]
    found = {**own, "class": type(pipeline), "hooks": hooks}
    config = _config(pipeline)
    return found | {f"config {k}": v for k, v in config.items() if k not in pipeline.components}


def _without_weights(part: Any) -> Any:
    """A part that is not a module: as it is, but a scheduler without what its last run left."""
    if not hasattr(part, "set_timesteps"):
        return part
    kind: Any = type(part)
    # a list that two of them write into
    left = names_set_in(kind, _IN_A_RUN) | BOOKKEEPING | {"timestep_list"}
    return {"class": kind, **{n: value for n, value in vars(part).items() if n not in left}}


def _scheduler(pipeline: Any) -> dict[str, Any] | None:
    scheduler = pipeline.components.get("scheduler")
    if scheduler is None:
        return None
    config = sorted(_config(scheduler).items())
    return {"class": name_of(type(scheduler)), "config": {k: described(v) for k, v in config}}


def _config(part: Any) -> dict[str, Any]:
    """The config that diffusers keeps for a part, without where it came from."""
    return own_config(getattr(part, "config", None))


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
        # asking a module for what it has not is slow
        scaling = vars(part).get("scaling")
        if isinstance(scaling, dict) and hasattr(part, "active_adapters"):
            off = bool(getattr(part, "disable_adapters", False))
            active = [] if off else list(part.active_adapters)  # type: ignore[arg-type]
            for name, scale in scaling.items():
                found.setdefault(name, set()).add(float(scale) if name in active else "off")
        processor = vars(part).get("processor") or part._modules.get("processor")
        scale = getattr(processor, "scale", None)
        if scale is not None and hasattr(processor, "to_k_ip"):
            found.setdefault("ip-adapter", set()).add(json.dumps(described(scale)))
    return {name: sorted(scales, key=str) for name, scales in sorted(found.items())}
