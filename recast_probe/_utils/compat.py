"""What the package uses of other libraries that they do not promise: private names, each in one
place, with the versions it was read in. `tests/test_compat.py` asks for every name, so that a
release without one is told by name.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

_ABSENT = object()


def attention_backends() -> dict[Any, Callable[..., Any]]:
    """The functions that diffusers' dispatch calls, by backend: diffusers' own dictionary, in 0.42
    ``_AttentionBackendRegistry._backends``."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    return _AttentionBackendRegistry._backends


def backend_name(chosen: Any = None) -> str:
    """Name of an attention backend; of the active one where none is chosen, in diffusers 0.42
    ``_AttentionBackendRegistry.get_active_backend``."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    backend = chosen or _AttentionBackendRegistry.get_active_backend()[0]
    return str(getattr(backend, "value", backend))


def chosen_backend(processor: Any) -> Any:
    """The attention backend that was set for a processor, None for the active one; in diffusers
    0.42 ``_attention_backend``."""
    return getattr(processor, "_attention_backend", None)


def feature_cache(transformer: torch.nn.Module) -> Any:
    """Configuration of the feature cache that is on, None for none; in diffusers 0.42
    ``CacheMixin._cache_config``."""
    return getattr(transformer, "_cache_config", None)


def hook_registry(module: torch.nn.Module) -> Any:
    """The ``HookRegistry`` of a module, None where it never had one; in diffusers 0.42
    ``_diffusers_hook``."""
    return vars(module).get("_diffusers_hook")


def diffusers_hooks(module: torch.nn.Module) -> Mapping[str, Any]:
    """diffusers' hooks of a module, by name."""
    return getattr(hook_registry(module), "hooks", {})


def own_forwards(module: torch.nn.Module) -> list[Any]:
    """What was set as this very module's forward, and what hooks have put aside and call.

    accelerate 1.10 to 1.15: ``_old_forward``. diffusers 0.42: ``HookRegistry._fn_refs``.
    """
    found = [vars(module).get(name) for name in ("forward", "_old_forward")]
    registry = hook_registry(module)
    for each in () if registry is None else registry._fn_refs:
        found += [each.forward, each.original_forward]
    return [each for each in found if each is not None]


def execution_device(pipeline: Any) -> torch.device:
    """Where a pipeline computes, also with offloading; in diffusers 0.42 ``_execution_device``."""
    return torch.device(pipeline._execution_device)


def callback_tensors(pipeline: Any) -> list[str] | None:
    """What a pipeline can hand to a callback, None where it does not say; in diffusers 0.42
    ``_callback_tensor_inputs``."""
    return getattr(pipeline, "_callback_tensor_inputs", None)


@contextmanager
def quiet(pipeline: Any) -> Iterator[None]:
    """The pipeline's own progress bar off, as it was afterwards; ``set_progress_bar_config`` sets
    ``_progress_bar_config`` in diffusers 0.42."""
    before = vars(pipeline).get("_progress_bar_config", _ABSENT)
    pipeline.set_progress_bar_config(disable=True)
    try:
        yield
    finally:
        if before is _ABSENT:
            del pipeline._progress_bar_config
        else:
            pipeline._progress_bar_config = before


def stand_in(module: torch.nn.Module, forward: Callable[..., Any]) -> torch.nn.Module:
    """A module that holds what another one does, and runs this function in its place: without the
    other one's hooks, and not compiled; in torch 2.11 to 2.13 ``_compiled_call_impl``."""
    own = copy.copy(module)
    hooks: dict[str, Any] = {
        name: OrderedDict() for name in ("_forward_pre_hooks", "_forward_hooks")
    }
    vars(own).update(hooks, forward=forward, _compiled_call_impl=None)
    return own


def free_offloaded(pipeline: Any) -> None:
    """Move parts back that model offloading moved to the device in a call; in diffusers 0.42
    ``_all_hooks`` says whether it is on."""
    if getattr(pipeline, "_all_hooks", None):
        pipeline.maybe_free_model_hooks()


def accelerate_hook(module: torch.nn.Module) -> Any:
    """accelerate's hook on a module, which may keep its weights elsewhere, None for none; in
    accelerate 1.10 to 1.15 ``_hf_hook``."""
    return vars(module).get("_hf_hook")


def calls_seen(model: Any) -> int:
    """How many calls of its module an nnsight model met in its last trace; in nnsight 0.8
    ``interleaver.counts``, by provider."""
    return model.interleaver.counts.get("model.input", 0)


def traced_module(envoy: Any) -> torch.nn.Module:
    """The module that an nnsight envoy stands for; in nnsight 0.8 ``Envoy._module``."""
    return envoy._module


def compiled_in_place(module: torch.nn.Module) -> bool:
    """Whether ``module.compile()`` was called; in torch 2.11 to 2.13 ``_compiled_call_impl``."""
    return module._compiled_call_impl is not None


def before_compiling(module: torch.nn.Module) -> Any | None:
    """The module that ``torch.compile(module)`` wraps in this one, None where this wraps none; in
    torch 2.11 to 2.13 ``OptimizedModule._orig_mod``."""
    return module._modules.get("_orig_mod")


def forward_hooks(module: torch.nn.Module) -> tuple[Mapping[int, Any], Mapping[int, Any]]:
    """A module's hooks before and after its forward; in torch 2.11 to 2.13 ``_forward_pre_hooks``
    and ``_forward_hooks``."""
    return module._forward_pre_hooks, module._forward_hooks


def forward_hooks_everywhere() -> tuple[Mapping[int, Any], Mapping[int, Any]]:
    """Hooks before and after the forward of all modules there are; in torch 2.11 to 2.13
    ``_global_forward_pre_hooks`` and ``_global_forward_hooks`` of ``torch.nn.modules.module``."""
    everywhere = torch.nn.modules.module
    return everywhere._global_forward_pre_hooks, everywhere._global_forward_hooks


def attends_by_torch() -> bool:
    """Whether ``scaled_dot_product_attention`` is PyTorch's own, in torch 2.11 to 2.13 that of
    ``torch._C._nn``: other kernels are put in its place by replacing this very function."""
    own = torch._C._nn.scaled_dot_product_attention
    return torch.nn.functional.scaled_dot_product_attention is own


def has_matrix_tiles(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies half-precision matrices in tiles (AMX); in torch 2.11 to
    2.13 ``torch.cpu._is_amx_tile_supported`` and ``_is_amx_fp16_supported``."""
    if dtype == torch.bfloat16:
        return torch.cpu._is_amx_tile_supported()
    return dtype == torch.float16 and torch.cpu._is_amx_fp16_supported()
