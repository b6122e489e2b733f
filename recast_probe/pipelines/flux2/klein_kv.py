"""FLUX.2 klein with a cache of its references: they are computed in the first step alone.

Inside attention the keys are [text; reference; generation]. In the first step the reference tokens
attend to nothing but themselves; in later steps the queries are those of text and generation, and
the keys and values of the reference come from the cache. There is no guidance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from recast_probe.layout import Grid
from recast_probe.pipelines.base import AttentionCall, TextInput
from recast_probe.pipelines.cached_blocks import CachedBlock
from recast_probe.pipelines.flux2.klein import Flux2Klein
from recast_probe.pipelines.reference_cache import ReferenceCache

# without references, with those that are computed, with those of the cache
PLAIN = ("self_processor_0", "dispatch_attention_fn_0")
COMPUTED = ("self_processor_0", "_flux2_kv_causal_attention_0", "dispatch_attention_fn_2")
CACHED = ("self_processor_0", "_flux2_kv_causal_attention_1", "dispatch_attention_fn_1")


class Flux2KleinKV(ReferenceCache, Flux2Klein):
    """``Flux2KleinKVPipeline`` of diffusers: the references are as in FLUX.2, and computed in the
    first step only.

    Examples:
        >>> from recast_probe.testing.tiny_flux2 import build_klein_kv
        >>> Flux2KleinKV(build_klein_kv()).query_groups
        ('generation', 'text')
    """

    name = "flux2-klein-kv"
    pipelines = ("Flux2KleinKVPipeline",)
    texts: Mapping[str, TextInput] = {"conditional": Flux2Klein.texts["conditional"]}
    processors: ClassVar[dict[str, str]] = {
        "double": "Flux2KVAttnProcessor",
        "single": "Flux2KVParallelSelfAttnProcessor",
    }
    cached_types: ClassVar[dict[str, type[CachedBlock]]] = {}
    reference_first = True
    attention_order = ("text", "reference", "generation")
    site = PLAIN
    sites = (PLAIN, COMPUTED, CACHED)

    def branch_names(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        return ("conditional",)

    def facts(self) -> dict[str, Any]:
        return {"reference": "computed in step 0, its keys and values cached"}

    def rehearsed_output(self, inputs: Mapping[str, Any]) -> Any:
        (states,) = super().rehearsed_output({**inputs, "return_dict": False})
        # the generation's alone, and a cache where one is asked for
        states = states[:, int(inputs.get("num_ref_tokens") or 0) :]
        return (states, None) if inputs.get("kv_cache_mode") else (states,)

    def operations(self, call: AttentionCall, inputs: Mapping[str, Any]) -> tuple[str, ...]:
        if self.cached_tokens(inputs):
            return CACHED
        return COMPUTED if inputs.get("num_ref_tokens") else PLAIN

    def attention_call_order(self, inputs: Mapping[str, Any]) -> list[int]:
        # where references are computed, they attend after text and generation, in a call of theirs
        each = 2 if inputs.get("num_ref_tokens") else 1
        return [each * block for block in range(len(self.attention_calls()))]

    def image_grids(self, inputs: Mapping[str, Any]) -> list[Grid]:
        # the generation's positions stand last
        positions = inputs["img_ids"].roll(-int(inputs.get("num_ref_tokens") or 0), dims=-2)
        return super().image_grids({"img_ids": positions})

    def cached_tokens(self, inputs: Mapping[str, Any]) -> int | None:
        cache = inputs.get("kv_cache")
        return None if cache is None else int(cache.num_ref_tokens)

    def keep_cached(self, inputs: Mapping[str, Any], kept: torch.Tensor) -> dict[str, Any]:
        from diffusers.models.transformers.transformer_flux2 import Flux2KVCache

        given = inputs["kv_cache"]
        if not len(kept):
            return {**inputs, "kv_cache": None, "kv_cache_mode": None}
        own = Flux2KVCache(len(given.double_block_caches), len(given.single_block_caches))
        own.num_ref_tokens = len(kept)
        for block, source in zip(_layers(own), _layers(given), strict=True):
            key, value = (each.index_select(1, kept.to(each.device)) for each in source.get())
            block.store(key, value)
        return {**inputs, "kv_cache": own}

    def kept_positions(
        self, inputs: Mapping[str, Any], rows: torch.Tensor, references: int
    ) -> dict[str, Any]:
        return {**super().kept_positions(inputs, rows, references), "num_ref_tokens": references}


def _layers(cache: Any) -> list[Any]:
    return [*cache.double_block_caches, *cache.single_block_caches]
