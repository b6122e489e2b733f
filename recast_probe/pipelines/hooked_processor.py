"""An attention processor with a place to step in between the projections and the softmax."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from recast_probe.errors import UnsupportedPipelineError

Attend = Callable[[Sequence[Tensor], Mapping[str, Any]], Tensor]


class HookedProcessor:
    """Base of the processors that compute what diffusers' own do, to the last bit.

    One belongs to one block. A block that is compiled sees nothing but tensors here, so that the
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

    def attention(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Attention's output with the heads side by side, (batch, token, width)."""
        from diffusers.models.attention_dispatch import dispatch_attention_fn

        options = {
            "attn_mask": mask,
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
        return output.flatten(2, 3).to(query.dtype)


def refuse_accelerated(transformer: torch.nn.Module) -> None:
    """Raise UnsupportedPipelineError where hooked processors are in place already."""
    processors = (getattr(module, "processor", None) for module in transformer.modules())
    if any(isinstance(processor, HookedProcessor) for processor in processors):
        raise UnsupportedPipelineError(
            "The pipeline, or another one with the same transformer, is accelerated already; call "
            "restore() of what accelerate() gave, or leave its with block first."
        )


def joint_projections(
    attn: Any, projected: Sequence[Any], rotary: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value of the whole sequence, text first, normalised, with rotary positions.

    Args:
        attn: the attention module of a FLUX block.
        projected: query, key and value of the image tokens, or of all in a block of one stream;
            then those of the text tokens where it has two.
        rotary: cosines and sines of the positions; None for none.
    """
    from diffusers.models.embeddings import apply_rotary_emb

    query, key, value = (each.unflatten(-1, (-1, attn.head_dim)) for each in projected[:3])
    query, key = attn.norm_q(query), attn.norm_k(key)
    if getattr(attn, "added_kv_proj_dim", None) is not None:
        added = [each.unflatten(-1, (-1, attn.head_dim)) for each in projected[3:]]
        query = torch.cat([attn.norm_added_q(added[0]), query], dim=1)
        key = torch.cat([attn.norm_added_k(added[1]), key], dim=1)
        value = torch.cat([added[2], value], dim=1)
    if rotary is not None:
        query = apply_rotary_emb(query, rotary, sequence_dim=1)
        key = apply_rotary_emb(key, rotary, sequence_dim=1)
    return query, key, value
