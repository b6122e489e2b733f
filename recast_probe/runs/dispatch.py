"""Attention as a pipeline itself computes it, for what a block gives it in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from recast_probe._utils.compat import attends_by_torch, backend_name
from recast_probe.attention.inputs import AttentionInputs
from recast_probe.attention.key_mask import hidden_keys
from recast_probe.attention.log_sum_exp import attention_with_log_sum_exp
from recast_probe.attention.order import SequenceOrder
from recast_probe.errors import UnsupportedPipelineError


@dataclass(frozen=True)
class BlockCall:
    """How a block calls attention.

    Attributes:
        options: as the model gives them.
        plain: in canonical order, one branch, without a mask.
        order: of the model's tokens, see ``Family.sequence_order``.
    """

    options: Mapping[str, Any]
    plain: bool
    order: SequenceOrder | None = None


def given_attention(
    block: int, arguments: Sequence[Any], options: Mapping[str, Any], merges: bool
) -> AttentionInputs:
    """What a model gives to attention, in its own order.

    Args:
        block: for the message.
        arguments, options: of the call.
        merges: reference tokens are merged, and may be weighed by a mask.

    Raises:
        UnsupportedPipelineError: a mask that differs between queries or heads.
    """
    mask = options.get("attn_mask")
    bias = hidden = None
    unknown = len(arguments) != 3 or options.get("is_causal")
    if mask is not None and not unknown:
        batch, keys = arguments[1].shape[:2]
        if merges and mask.numel() == keys and mask.dtype != torch.bool:
            # the mask of merged tokens is one row, the same for all queries and heads
            bias = mask.flatten()
        else:
            hidden = hidden_keys(mask, batch, keys)
            unknown = hidden is None
    if unknown:
        raise UnsupportedPipelineError(
            f"Block {block} uses an attention mask that is not the same for all queries, and "
            "statistics under such a mask are not supported; leave out attention masks in "
            "joint_attention_kwargs."
        )
    query, key, value = arguments
    return AttentionInputs(
        query, key, value, scale=options.get("scale"), logit_bias=bias, hidden=hidden
    )


def dispatch(*arguments: Any, **options: Any) -> torch.Tensor:
    """Attention as the pipeline itself would compute it."""
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    return dispatch_attention_fn(*arguments, **options)


def dispatched(inputs: AttentionInputs, options: Mapping[str, Any]) -> torch.Tensor:
    """Attention without cuts by the pipeline's own kernel; ``options`` are those of its call."""
    options = dict(options)
    if inputs.scale is not None:
        options["scale"] = inputs.scale
    mask = None if inputs.logit_bias is None else inputs.logit_bias[None, None, None]
    if inputs.hidden is not None:
        seen = ~inputs.hidden[:, None, None]
        mask = seen if mask is None else mask.masked_fill(~seen, -torch.inf)
    if mask is not None or "attn_mask" in options:
        options["attn_mask"] = mask
    return dispatch(inputs.query, inputs.key, inputs.value, **options)


def is_native(options: Mapping[str, Any]) -> bool:
    """PyTorch chooses the kernel, as it does for the readout: both have the same output."""
    return attends_by_torch() and backend_name(options.get("backend")) == "native"


def uncut(inputs: AttentionInputs) -> torch.Tensor:
    """The output without cuts, which the pipeline's own attention knows nothing of."""
    return attention_with_log_sum_exp(inputs.query, inputs.key, inputs.value, inputs.scale).output
