"""What PyTorch modules hold, as they are now: their weights, and everything else that decides what
they compute. Where their weights lie (on a device, offloaded) decides nothing and is left out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import MethodType
from typing import Any, Protocol

import torch

from recast_probe._utils.compat import (
    accelerate_hook,
    compiled_in_place,
    diffusers_hooks,
    forward_hooks,
)
from recast_probe.errors import InputError

_MODULE = set(vars(torch.nn.Module())) - {"training"}
_WRAPPERS = ("accelerate.hooks", "diffusers.hooks.hooks")
# hooks that only bring weights to where they are needed
_PLACING = {
    "AlignDevicesHook",
    "CpuOffload",
    "GroupOffloadingHook",
    "LayerExecutionTrackerHook",
    "LazyPrefetchGroupOffloadingHook",
}
_COLLECTING = "install_output_capuring_hook.<locals>.output_capturing_hook"
# where something was loaded from, what a run leaves behind, what only training or placing asks for
BOOKKEEPING = {
    "_auto_class",
    "_caches",
    "_commit_hash",
    "_conv_idx",
    "_conv_num",
    "_diffusers_version",
    "_dynamic_tied_weights_keys",
    "_enc_conv_idx",
    "_enc_conv_num",
    "_enc_feat_map",
    "_feat_map",
    "_gradient_checkpointing_func",
    "_hf_peft_config_loaded",
    "_internal_dict",
    "_is_hf_initialized",
    "_name_or_path",
    "_original_object_hash",
    "_output_capturing_hooks_installed",
    "_safe_fusing",
    "_use_default_values",
    "deprecation_warnings",
    "all_tied_weights_keys",
    "architectures",
    "dtype",
    "gradient_checkpointing",
    "hf_device_map",
    "init_kwargs",
    "lora_scale",
    "name_or_path",
    "peft_config",
    "rope_deltas",
    "torch_dtype",
    "transformers_version",
}
# accelerate replaces these by functions that warn
_MOVING = {"to", "cuda", "cpu", "npu", "xpu", "mlu", "sdaa", "musa", "hpu"}
_APART = {*_MODULE, *_MOVING, "_hf_hook", "_old_forward", "_diffusers_hook", "forward"}
_LEFT_OUT = frozenset(_APART | BOOKKEEPING)


def own_config(config: Any) -> dict[str, Any]:
    """Of the config that diffusers keeps for an object, all but where it came from."""
    if not isinstance(config, Mapping):
        return {}
    return {str(k): v for k, v in config.items() if not str(k).startswith("_")}


def named_weights(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """All parameters and buffers, by name; those that accelerate keeps elsewhere are fetched.

    Raises:
        InputError: weights that group offloading wrote to a disk.
    """
    for path, part in module.named_modules():
        elsewhere = getattr(accelerate_hook(part), "weights_map", None)
        for hook in diffusers_hooks(part).values():
            if getattr(getattr(hook, "group", None), "offload_to_disk_path", None):
                raise InputError(
                    f"The weights of {path or type(module).__name__} are offloaded to a disk in "
                    "groups, where they cannot be told from others; offload them to memory "
                    "(leave out offload_to_disk_path)."
                )
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is None:
                continue
            if tensor.is_meta and elsewhere is not None:
                tensor = elsewhere[name]
            yield f"{path}.{name}" if path else name, tensor


class Digests(Protocol):
    """Digests of values; see ``digest.Contents``."""

    modules: dict[int, str]

    def __call__(self, value: Any) -> bytes: ...

    def of(self, kind: str, *values: Any) -> bytes: ...

    def join(self, kind: str, digests: Iterable[bytes]) -> bytes: ...

    def named(self, kind: str, parts: Mapping[Any, Any]) -> bytes: ...


class ModuleContents:
    """Digests of modules that belong together, such as the parts of a pipeline.

    Args:
        contents: digests of values.
        parts: modules by name.
    """

    def __init__(self, contents: Digests, parts: Mapping[str, torch.nn.Module]) -> None:
        self._contents, self.parts = contents, dict(parts)
        for name, part in self.parts.items():
            for path, module in part.named_modules():
                contents.modules.setdefault(id(module), f"{name}.{path}")

    def digest(self) -> bytes:
        """Of everything."""
        state = [self._contents.named("state", self.state(name)) for name in self.parts]
        return self._contents.join("modules", [self.weights(), *state])

    def weights(self) -> bytes:
        """Of the names, dtypes, shapes and numbers of all weights.

        Raises:
            InputError: a weight whose numbers cannot be had; the message names it.
        """
        digest = hashlib.sha256()
        for name, part in sorted(self.parts.items()):
            for path, tensor in sorted(named_weights(part), key=lambda each: each[0]):
                try:
                    found = self._contents(tensor)
                except InputError as error:
                    raise InputError(
                        f"The weight {name}.{path} is {error}, so this model cannot be told from "
                        "another; load its numbers first."
                    ) from error
                digest.update(self._contents(f"{name}.{path}") + found)
        return digest.digest()

    def state(self, name: str) -> dict[str, Any]:
        """By path within one part, what each of its modules is apart from weights."""
        return {path: self._state(module) for path, module in self.parts[name].named_modules()}

    def _state(self, module: torch.nn.Module) -> Any:
        own = vars(module)
        found: dict[str, Any] = {n: value for n, value in own.items() if n not in _LEFT_OUT}
        hooks = [_changing(each.values()) for each in forward_hooks(module)]
        facts = {
            "hooks": [each for each in hooks if each],
            "forward": _own_forward(module),
            "offloading": _acting(accelerate_hook(module)),
            "diffusers": _acting_hooks(diffusers_hooks(module)),
            "compiled": compiled_in_place(module),
        }
        facts["config"] = own_config(own.get("_internal_dict"))
        found |= {f" {fact}": value for fact, value in facts.items() if value}
        return State(type(module), found)


class State:
    """What a module is apart from weights: its class, its attributes, and what was hung on it."""

    __slots__ = ("attributes", "made")

    def __init__(self, made: type, attributes: dict[str, Any]) -> None:
        self.made, self.attributes = made, attributes


def _changing(hooks: Iterable[Any]) -> list[Any]:
    """Hooks that a user or a tool registered, not those by which transformers collects states."""
    return [hook for hook in hooks if getattr(hook, "__qualname__", "") != _COLLECTING]


def _own_forward(module: torch.nn.Module) -> Any:
    """A forward that was put in place of the class's; None for none."""
    forward = vars(module).get("forward")
    while isinstance(forward, partial) and forward.func.__module__ in _WRAPPERS:
        forward = getattr(forward, "__wrapped__", None)
    if isinstance(forward, MethodType) and forward.__self__ is module:
        # the class's own, bound
        return None if forward.__func__ is type(module).forward else forward.__func__
    return forward


def _acting(hook: Any) -> Any:
    """What of an accelerate hook does more than bring weights to where they are needed."""
    if type(hook).__name__ == "SequentialHook":
        return [each for each in map(_acting, hook.hooks) if each is not None] or None
    return None if type(hook).__name__ in _PLACING else hook


def _acting_hooks(hooks: Mapping[str, Any]) -> list[Any]:
    """The same of diffusers' hooks: names, classes and settings, without the state of a run."""
    return [
        (
            name,
            type(hook),
            {
                key: value
                for key, value in vars(hook).items()
                if key != "fn_ref" and type(value).__name__ != "StateManager"
            },
        )
        for name, hook in hooks.items()
        if type(hook).__name__ not in _PLACING
    ]
