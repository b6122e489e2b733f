"""FLUX.2's blocks run from a cache; see ``cached_blocks``.

Modulation is computed once for all blocks of a kind and handed to them. A single-stream block has
one projection before attention and MLP and one after them, so a fresh token's query, key and value
are computed with its MLP input and thrown away: weights that are quantised or adapted by LoRA
cannot be cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from recast_probe.pipelines.cached_blocks import CachedBlock, CachedDoubleBlock, within_float16


class CachedFlux2DoubleBlock(CachedDoubleBlock):
    """A double-stream block of FLUX.2."""

    modulation = "temb_mod_img"

    def cached(self, tokens: Tensor, modulation: Tensor) -> Tensor:
        block, kept = self.block, self.cache.features(self.number)
        (_, _, attention_gate), (shift, scale, gate) = parameters(modulation, 2)
        tokens = tokens + attention_gate * kept.attention
        for item, fresh in enumerate(self.cache.fresh(self.number)):
            if len(fresh):
                one = slice(item, item + 1)
                picked = block.norm2(tokens[one, fresh]) * (1 + scale[one]) + shift[one]
                kept.output[item, fresh] = block.ff(picked)[0]
        return tokens + gate * kept.output


class CachedFlux2SingleBlock(CachedBlock):
    """A single-stream block of FLUX.2, which is given the whole sequence as one tensor."""

    modulation = "temb_mod"

    def cached(self, tokens: Tensor, modulation: Tensor) -> Tensor:
        block, kept = self.block, self.cache.features(self.number)
        ((shift, scale, gate),) = parameters(modulation, 1)
        for item, fresh in enumerate(self.cache.fresh(self.number)):
            if len(fresh):
                one = slice(item, item + 1)
                picked = (1 + scale[one]) * block.norm(tokens[one, fresh]) + shift[one]
                _, mlp = split_projection(block.attn, block.attn.to_qkv_mlp_proj(picked))
                joined = torch.cat([kept.attention[one, fresh], block.attn.mlp_act_fn(mlp)], dim=2)
                kept.output[item, fresh] = block.attn.to_out(joined)[0]
        tokens = tokens + gate * kept.output
        return within_float16(tokens)

    def attention_module(self) -> tuple[torch.nn.Module, Callable[[Any, Any], Tensor]]:
        # attention's output stands before the MLP's in what the last projection takes
        attention = self.block.attn

        def attended(inputs: Any, _: Any) -> Tensor:
            own = inputs[0].shape[-1] * attention.inner_dim
            own //= attention.inner_dim + attention.mlp_hidden_dim
            return self.generation(inputs[0])[..., :own]

        return attention.to_out, attended

    def output_module(self) -> tuple[torch.nn.Module, Callable[[Any, Any], Tensor]]:
        return self.block.attn.to_out, lambda _, output: self.generation(output)

    def projected(self, place: int) -> tuple[torch.nn.Module, Callable[[Any, Any], Tensor]]:
        attention = self.block.attn
        return attention.to_qkv_mlp_proj, lambda _, output: split_projection(attention, output)[
            0
        ].chunk(3, dim=-1)[place]


def parameters(modulation: Tensor, sets: int) -> Any:
    """So many sets of (shift, scale, gate), each (batch, 1, width)."""
    from diffusers.models.transformers.transformer_flux2 import Flux2Modulation

    return Flux2Modulation.split(modulation, sets)


def split_projection(attn: Any, projected: Tensor) -> tuple[Tensor, Tensor]:
    """What a single-stream block's first projection gave, split: query, key and value side by
    side, and the MLP's input. By ratio, since tensor parallelism may hold a slice of each."""
    attention = 3 * attn.inner_dim
    whole = attention + attn.mlp_hidden_dim * attn.mlp_mult_factor
    own = projected.shape[-1] * attention // whole
    return projected[..., :own], projected[..., own:]
