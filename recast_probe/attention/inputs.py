"""What goes into one attention call, and how an intervention may change it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Cut:
    """Keys that some queries do not see.

    Attributes:
        queries: int64 (rows,), ascending positions in the query sequence.
        keys: int64 (columns,), ascending positions in the key sequence.
        heads: the heads that are cut; None for all.
        removal: "renormalised" leaves the keys out of the softmax, so that the others share their
            probability; "value-zeroed" leaves the probabilities and adds nothing for these keys.

    Examples:
        >>> import torch
        >>> cut = Cut(queries=torch.arange(3, 7), keys=torch.arange(7, 11), heads=(0,))
        >>> cut.removal
        'renormalised'
    """

    queries: Tensor
    keys: Tensor
    heads: tuple[int, ...] | None = None
    removal: Literal["renormalised", "value-zeroed"] = "renormalised"


@dataclass(frozen=True)
class AttentionInputs:
    """One attention call.

    Attributes:
        query: (batch, query, head, dim).
        key, value: (batch, key, head, dim); more keys than queries where keys and values of
            reference tokens come from an earlier step.
        cuts: what is left out.
        scale: factor on the scores; None for 1 / sqrt(dim).
        logit_bias: (key,), added to the logits of every query; such attention can be neither read
            nor cut. None for nothing.
        hidden: bool (batch, key), keys that the model itself leaves out of the softmax, such as
            padding; None for none.

    Examples:
        >>> import torch
        >>> q, k, v = torch.zeros(3, 1, 11, 2, 8)
        >>> AttentionInputs(q, k, v).cuts
        ()
    """

    query: Tensor
    key: Tensor
    value: Tensor
    cuts: tuple[Cut, ...] = ()
    scale: float | None = None
    logit_bias: Tensor | None = None
    hidden: Tensor | None = None
