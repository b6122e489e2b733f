"""FLUX.1's blocks run from a cache; see ``cached_blocks``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recast_probe.pipelines.cached_blocks import CachedBlock, CachedDoubleBlock, within_float16


class CachedFluxDoubleBlock(CachedDoubleBlock):
    """A double-stream block of FLUX.1."""

    modulation = "temb"

    def cached(self, tokens: Tensor, modulation: Tensor) -> Tensor:
        block, kept = self.block, self.cache.features(self.number)
        # the modulation is that of this step, and does not depend on the tokens
        _, attention_gate, shift, scale, gate = block.norm1(tokens[:, :1], emb=modulation)
        tokens = tokens + attention_gate[:, None] * kept.attention
        for item, fresh in enumerate(self.cache.fresh(self.number)):
            if len(fresh):
                picked = block.norm2(tokens[item : item + 1, fresh])
                picked = picked * (1 + scale[item, None, None]) + shift[item, None, None]
                kept.output[item, fresh] = block.ff(picked)[0]
        return tokens + gate[:, None] * kept.output


class CachedFluxSingleBlock(CachedBlock):
    """A single-stream block of FLUX.1."""

    modulation = "temb"

    def cached(self, tokens: Tensor, modulation: Tensor) -> Tensor:
        block, kept = self.block, self.cache.features(self.number)
        _, gate = block.norm(tokens[:, :1], emb=modulation)
        for item, fresh in enumerate(self.cache.fresh(self.number)):
            if len(fresh):
                one = slice(item, item + 1)
                picked, _ = block.norm(tokens[one, fresh], emb=modulation[one])
                hidden = block.act_mlp(block.proj_mlp(picked))
                joined = torch.cat([kept.attention[one, fresh], hidden], dim=2)
                kept.output[item, fresh] = block.proj_out(joined)[0]
        tokens = tokens + gate[:, None] * kept.output
        return within_float16(tokens)

    def attention_module(self) -> tuple[torch.nn.Module, Callable[[Any, Any], Tensor]]:
        return self.block.attn, lambda _, output: self.generation(output)

    def output_module(self) -> tuple[torch.nn.Module, Callable[[Any, Any], Tensor]]:
        return self.block.proj_out, lambda _, output: self.generation(output)


FLUX_BLOCKS: dict[str, type[CachedBlock]] = {
    "double": CachedFluxDoubleBlock,
    "single": CachedFluxSingleBlock,
}
"""FLUX.1's blocks by kind, for ``cached_types``."""


class CachedReduxSingleBlock(CachedFluxSingleBlock):
    """A single-stream block of FLUX.1 with the generation tokens last."""

    def generation(self, sequence: Tensor) -> Tensor:
        return sequence[:, -self.cache.layout.generation.size :]

    def in_order(self, sequence: Tensor) -> Tensor:
        text = self.cache.layout.text
        others = sequence[:, text : -self.cache.layout.generation.size]
        return torch.cat([sequence[:, :text], self.generation(sequence), others], dim=1)
