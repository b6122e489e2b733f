"""Qwen-Image's attention with a place to step in; see ``hooked_processor``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recast_probe.pipelines.hooked_processor import HookedProcessor


class HookedQwenProcessor(HookedProcessor):
    """Computes what ``QwenDoubleStreamAttnProcessor2_0`` does, to the last bit."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        encoder_hidden_states_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> tuple[Tensor, Tensor]:
        if attention_mask is not None:
            raise ValueError("Give encoder_hidden_states_mask; an attention_mask is not taken.")
        if encoder_hidden_states_mask is not None:
            present = torch.ones(
                hidden_states.shape[:2], dtype=torch.bool, device=hidden_states.device
            )
            attention_mask = torch.cat([encoder_hidden_states_mask, present], dim=1)
            attention_mask = attention_mask[:, None, None, :]
        query, key, value = _joint(attn, hidden_states, encoder_hidden_states, image_rotary_emb)
        output = self.attention(query, key, value, attention_mask)
        text = encoder_hidden_states.shape[1]
        image = attn.to_out[0](output[:, text:].contiguous())
        if len(attn.to_out) > 1:
            image = attn.to_out[1](image)
        return image, attn.to_add_out(output[:, :text].contiguous())


def _joint(attn: Any, image: Tensor, text: Tensor, rotary: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of the whole sequence, text first, with rotary positions."""
    from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen

    size = attn.inner_dim // attn.heads

    def heads(projection: Any, states: Tensor, norm: Any = None) -> Tensor:
        projected = projection(states).unflatten(-1, (-1, size))
        return projected if norm is None else norm(projected)

    query = heads(attn.to_q, image, attn.norm_q)
    key = heads(attn.to_k, image, attn.norm_k)
    text_query = heads(attn.add_q_proj, text, attn.norm_added_q)
    text_key = heads(attn.add_k_proj, text, attn.norm_added_k)
    if rotary is not None:
        of_image, of_text = rotary
        query, key = (
            apply_rotary_emb_qwen(each, of_image, use_real=False) for each in (query, key)
        )
        text_query, text_key = (
            apply_rotary_emb_qwen(each, of_text, use_real=False) for each in (text_query, text_key)
        )
    value = torch.cat([heads(attn.add_v_proj, text), heads(attn.to_v, image)], dim=1)
    return torch.cat([text_query, query], dim=1), torch.cat([text_key, key], dim=1), value
