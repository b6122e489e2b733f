"""What users and other tools do to a pipeline, each as a context that takes it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
from diffusers.hooks import HookRegistry, apply_taylorseer_cache
from diffusers.models.transformers import transformer_flux
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

BLOCKS = ("transformer_blocks", "single_transformer_blocks")
TAYLOR = diffusers.TaylorSeerCacheConfig(cache_interval=2, disable_cache_before_step=1)


def cache_configs(pipe: Any) -> dict[str, Any]:
    """A configuration of each feature cache of diffusers that FLUX can have, by name."""
    timestep = {"current_timestep_callback": lambda: pipe._current_timestep}
    everywhere = {
        "spatial_attention_block_skip_range": 2,
        "spatial_attention_timestep_skip_range": (-1, 1001),
        "spatial_attention_block_identifiers": BLOCKS,
    }
    return {
        "MagCache": diffusers.MagCacheConfig(num_inference_steps=3, mag_ratios=[1.0] * 3),
        "FirstBlockCache": diffusers.FirstBlockCacheConfig(threshold=0.5),
        "FasterCache": diffusers.FasterCacheConfig(
            **everywhere, **timestep, tensor_format="BFCHW", is_guidance_distilled=True
        ),
        "PAB": diffusers.PyramidAttentionBroadcastConfig(**everywhere, **timestep),
        "TaylorSeer": TAYLOR,
        "SeaCache": diffusers.SeaCacheConfig(),
        "TextKVCache": diffusers.TextKVCacheConfig(),
    }


@contextmanager
def cached(pipe: Any, name: str) -> Iterator[None]:
    """A feature cache is on."""
    pipe.transformer.enable_cache(cache_configs(pipe)[name])
    try:
        yield
    finally:
        pipe.transformer.disable_cache()


@contextmanager
def applied(pipe: Any) -> Iterator[None]:
    """A feature cache is on that the transformer itself knows nothing of."""
    apply_taylorseer_cache(pipe.transformer, TAYLOR)
    try:
        yield
    finally:
        for module in pipe.transformer.modules():
            registry = getattr(module, "_diffusers_hook", None)
            for name in [] if registry is None else list(registry.hooks):
                HookRegistry.check_if_exists_or_initialize(module).remove_hook(name)


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute of an object or a class is another one."""
    absent = object()
    before = vars(owner).get(name, absent)
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name) if before is absent else setattr(owner, name, before)


def wrapping(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls this one, as tools put it in its place."""

    def call(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **options)

    return call


def halved(self: Any, attn: Any, hidden_states: Any, *arguments: Any, **options: Any) -> Any:
    """A processor's call that computes something else."""
    return FluxAttnProcessor._original(self, attn, hidden_states / 2, *arguments, **options)


def same_name() -> Any:
    """A processor whose class has diffusers' own name, and computes something else."""
    kind = type("FluxAttnProcessor", (FluxAttnProcessor,), {})

    def call(self: Any, attn: Any, hidden_states: Any, *arguments: Any, **options: Any) -> Any:
        return FluxAttnProcessor.__call__(self, attn, hidden_states / 2, *arguments, **options)

    kind.__call__ = call  # type: ignore[method-assign]
    return kind()


@contextmanager
def patched_class(pipe: Any) -> Iterator[None]:
    """The class of all processors computes something else."""
    with (
        replaced(FluxAttnProcessor, "_original", FluxAttnProcessor.__call__),
        replaced(FluxAttnProcessor, "__call__", halved),
    ):
        yield


@contextmanager
def one_processor(pipe: Any, block: int = 1) -> Iterator[None]:
    """One block has a processor of the same name that computes something else."""
    attention = [*pipe.transformer.transformer_blocks, *pipe.transformer.single_transformer_blocks]
    with replaced(attention[block].attn, "processor", same_name()):
        yield


@contextmanager
def all_processors(pipe: Any) -> Iterator[None]:
    """Every block has such a processor."""
    before = dict(pipe.transformer.attn_processors)
    pipe.transformer.set_attn_processor(same_name())
    try:
        yield
    finally:
        pipe.transformer.set_attn_processor(before)


@contextmanager
def patched_projections(pipe: Any) -> Iterator[None]:
    """A function that the processors call is another one."""
    own = transformer_flux._get_qkv_projections
    with replaced(transformer_flux, "_get_qkv_projections", wrapping(own)):
        yield


PROCESSORS = {
    "class": patched_class,
    "one of the same name": one_processor,
    "all of the same name": all_processors,
    "a function they call": patched_projections,
}


def _forward(place: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def change(pipe: Any) -> Any:
        owner = place(pipe.transformer)
        return replaced(owner, "forward", wrapping(owner.forward))

    return change


FORWARDS = {
    "transformer": _forward(lambda transformer: transformer),
    "transformer's class": _forward(type),
    "block": _forward(lambda transformer: transformer.single_transformer_blocks[2]),
    "block's class": _forward(lambda transformer: type(transformer.transformer_blocks[0])),
    "attention": _forward(lambda transformer: transformer.transformer_blocks[1].attn),
    "attention's class": _forward(lambda transformer: type(transformer.transformer_blocks[0].attn)),
}


class Interrupt:
    """A callback that interrupts the pipeline after a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def __call__(self, pipe: Any, step: int, _: Any, given: dict[str, torch.Tensor]) -> Any:
        if step == self._step:
            pipe._interrupt = True
        return given
