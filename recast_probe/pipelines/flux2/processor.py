"""FLUX.2's attention with a place to step in; see ``hooked_processor``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recast_probe.pipelines.hooked_processor import HookedProcessor, joint_projections


class HookedFlux2Processor(HookedProcessor):
    """Computes what ``Flux2AttnProcessor`` does in a double-stream block, to the last bit."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        from diffusers.models.transformers.transformer_flux2 import _get_qkv_projections

        projected = _get_qkv_projections(attn, hidden_states, encoder_hidden_states)
        query, key, value = joint_projections(attn, projected, image_rotary_emb)
        output = self.attention(query, key, value, attention_mask)
        if encoder_hidden_states is None:
            return attn.to_out[1](attn.to_out[0](output))
        text = encoder_hidden_states.shape[1]
        image = attn.to_out[1](attn.to_out[0](output[:, text:]))
        return image, attn.to_add_out(output[:, :text])


class HookedFlux2ParallelProcessor(HookedProcessor):
    """Computes what ``Flux2ParallelSelfAttnProcessor`` does in a single-stream block, to the last
    bit: one projection gives query, key, value and the MLP's input, another takes attention's
    output and the MLP's together."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Tensor:
        attended, mlp = split_projection(attn, attn.to_qkv_mlp_proj(hidden_states))
        projected = attended.chunk(3, dim=-1)
        query, key, value = joint_projections(attn, projected, image_rotary_emb)
        output = self.attention(query, key, value, attention_mask)
        return attn.to_out(torch.cat([output, attn.mlp_act_fn(mlp)], dim=-1))


def split_projection(attn: Any, projected: Tensor) -> tuple[Tensor, Tensor]:
    """What a single-stream block's first projection gave, parted: query, key and value side by
    side, and the MLP's input. By ratio, since tensor parallelism may hold a slice of each."""
    attention = 3 * attn.inner_dim
    whole = attention + attn.mlp_hidden_dim * attn.mlp_mult_factor
    own = projected.shape[-1] * attention // whole
    return projected[..., :own], projected[..., own:]
