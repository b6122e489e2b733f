"""FLUX.1's attention with a place to step in; see ``hooked_processor``."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from recast_probe.pipelines.hooked_processor import HookedProcessor, joint_projections


class HookedFluxProcessor(HookedProcessor):
    """Computes what ``FluxAttnProcessor`` does, to the last bit."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        from diffusers.models.transformers.transformer_flux import _get_qkv_projections

        projected = _get_qkv_projections(attn, hidden_states, encoder_hidden_states)
        query, key, value = joint_projections(attn, projected, image_rotary_emb)
        output = self.attention(query, key, value, attention_mask)
        if encoder_hidden_states is None:
            return output
        text = encoder_hidden_states.shape[1]
        image = attn.to_out[0](output[:, text:].contiguous())
        return attn.to_out[1](image), attn.to_add_out(output[:, :text].contiguous())
