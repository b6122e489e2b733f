"""FLUX transformers whose reference tokens stand in the sequence, after those of the generation.

Inside attention the sequence is [text; generation; reference 1; reference 2; ...] in double-stream
and single-stream blocks alike; ``img_ids`` says which image, row and column an image token is of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np
import torch

from recast_probe.errors import InputError
from recast_probe.layout import TokenLayout
from recast_probe.pipelines.base import AttentionCall
from recast_probe.pipelines.cached_blocks import CachedBlock, cached_blocks
from recast_probe.pipelines.feature_cache import FeatureCache
from recast_probe.pipelines.flux.base import Flux
from recast_probe.selection.merging import Groups


class FluxSequence(Flux):
    """Shared by FLUX.1 Kontext and FLUX.2; not a family itself.

    Attributes:
        cached_types: how a block runs from a cache, by kind of block.
        remedy: what a user does about another processor.
    """

    operations = ("self_processor_0", "dispatch_attention_fn_0")
    cached_types: ClassVar[Mapping[str, type[CachedBlock]]]
    remedy: ClassVar[str]

    def lacking(self) -> list[str]:
        return super().lacking() or self.other_processors(self.remedy)

    def attention_calls(self) -> list[AttentionCall]:
        return [
            AttentionCall(kind, f"{stack}.{index}.attn", self.operations)
            for kind, stack, index in self.block_places()
        ]

    def observed_layout(self, inputs: Mapping[str, Any]) -> TokenLayout:
        generation, *references = self.image_grids(inputs)
        return TokenLayout(
            text=int(inputs["encoder_hidden_states"].shape[1]),
            generation=generation,
            references=tuple(references),
        )

    def keep_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, kept: Sequence[int] | np.ndarray
    ) -> dict[str, Any]:
        hidden_states, positions = inputs["hidden_states"], inputs["img_ids"]
        generation = layout.generation.size
        index = torch.cat(
            [torch.arange(generation), generation + torch.as_tensor(np.asarray(kept, np.int64))]
        ).to(hidden_states.device)
        return {
            **inputs,
            "hidden_states": hidden_states.index_select(1, index),
            "img_ids": positions.index_select(positions.ndim - 2, index.to(positions.device)),
        }

    def block_modules(self) -> list[torch.nn.Module]:
        transformer = self.transformer
        return [getattr(transformer, stack)[index] for _, stack, index in self.block_places()]

    def reference_features(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        return inputs["hidden_states"][:, layout.generation.size :]

    def merge_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, groups: Groups, *, proportional: bool
    ) -> dict[str, Any]:
        generation = inputs["hidden_states"][:, : layout.generation.size]
        merged = groups.mean(self.reference_features(inputs, layout))
        edited = self.keep_reference_tokens(inputs, layout, groups.kept.numpy())
        edited["hidden_states"] = torch.cat([generation, merged], dim=1)
        if proportional and len(groups.kept) < len(groups.group):
            options = dict(inputs.get("joint_attention_kwargs") or {})
            if options.get("attention_mask") is not None:
                raise InputError(
                    "Merged reference tokens are weighted through the attention mask, but "
                    "joint_attention_kwargs holds an attention_mask already; leave it out, or "
                    "choose proportional=False."
                )
            present = layout.text + layout.generation.size
            weight = torch.zeros(present + len(groups.kept))
            weight[present:] = groups.sizes.float().log()
            options["attention_mask"] = weight.to(merged)[None, None, None]
            edited["joint_attention_kwargs"] = options
        return edited

    def cached_blocks(self, cache: FeatureCache) -> AbstractContextManager[None]:
        kinds = (self.cached_types[kind] for kind, _, _ in self.block_places())
        blocks = list(zip(kinds, self.block_modules(), strict=True))
        return cached_blocks(blocks, cache)
