"""FLUX attention with a place to step in between the projections and the softmax."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Attend = Callable[[Sequence[Tensor], Mapping[str, Any]], Tensor]


class HookedFluxProcessor:
    """An attention processor that computes what ``FluxAttnProcessor`` does, to the last bit.

    It belongs to one block. A block that is compiled sees nothing but tensors here, so that the
    blocks share one compiled graph for each number of tokens.

    Attributes:
        original: the processor whose place it took.
        attend: attention of the present call, given (query, key, value) as (batch, token, head,
            dim) and the dispatch's options; None for the pipeline's own.
        earlier: keys and values that are attended to after the block's own; None for none.
    """

    def __init__(self, original: Any) -> None:
        self.original = original
        self._attention_backend = original._attention_backend
        self._parallel_config = original._parallel_config
        self.attend: Attend | None = None
        self.earlier: tuple[Tensor, Tensor] | None = None

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        from diffusers.models.attention_dispatch import dispatch_attention_fn

        query, key, value = _joint(attn, hidden_states, encoder_hidden_states, image_rotary_emb)
        options = {
            "attn_mask": attention_mask,
            "backend": self._attention_backend,
            "parallel_config": self._parallel_config,
        }
        if self.attend is not None:
            output = self.attend((query, key, value), options)
        else:
            if self.earlier is not None:
                key = torch.cat([key, self.earlier[0]], dim=1)
                value = torch.cat([value, self.earlier[1]], dim=1)
            output = dispatch_attention_fn(query, key, value, **options)
        output = output.flatten(2, 3).to(query.dtype)
        if encoder_hidden_states is None:
            return output
        text = encoder_hidden_states.shape[1]
        image = attn.to_out[0](output[:, text:].contiguous())
        return attn.to_out[1](image), attn.to_add_out(output[:, :text].contiguous())


def _joint(
    attn: Any, image: Tensor, text: Tensor | None, rotary: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of the whole sequence, text first, with rotary positions."""
    from diffusers.models.embeddings import apply_rotary_emb
    from diffusers.models.transformers.transformer_flux import _get_qkv_projections

    projected = _get_qkv_projections(attn, image, text)
    query, key, value = (each.unflatten(-1, (-1, attn.head_dim)) for each in projected[:3])
    query, key = attn.norm_q(query), attn.norm_k(key)
    if attn.added_kv_proj_dim is not None:
        added = [each.unflatten(-1, (-1, attn.head_dim)) for each in projected[3:]]
        query = torch.cat([attn.norm_added_q(added[0]), query], dim=1)
        key = torch.cat([attn.norm_added_k(added[1]), key], dim=1)
        value = torch.cat([added[2], value], dim=1)
    if rotary is not None:
        query = apply_rotary_emb(query, rotary, sequence_dim=1)
        key = apply_rotary_emb(key, rotary, sequence_dim=1)
    return query, key, value
