"""Statistics of attention between plain tensors, without any pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from recast_probe.attention.readout import GENERATION_TO_REFERENCE, Readout, attend
from recast_probe.errors import InputError
from recast_probe.layout import TokenLayout


def read_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    layout: TokenLayout,
    *,
    pairs: Sequence[tuple[str, str]] = GENERATION_TO_REFERENCE,
    scale: float | None = None,
    heads: Sequence[int] | None = None,
    heads_first: bool = False,
) -> Readout:
    """Softmax attention of any model, and who attends to whom in it (Eq. 2), without a probe.

    The tokens are those of one sequence, [text; generation; reference 1; reference 2; ...]. No
    matrix of probabilities is made: they are summed up in chunks of rows, in float32.

    Args:
        query, key, value: floating point, (batch, token, head, dim), as they enter the softmax:
            with their positions and norms applied.
        layout: which tokens are text, generation and reference; groups may be empty but for the
            generation.
        pairs: (query group, key group) pairs to score; the default is Eq. 2's.
        scale: factor on the scores; 1 / sqrt(dim) by default.
        heads: statistics for these heads only, in this order; the output has all of them.
        heads_first: the tensors are (batch, head, token, dim) instead, as PyTorch's
            ``scaled_dot_product_attention`` takes them.

    Returns:
        ``output`` in the axes of ``query``; by pair, ``score`` (batch, head, key), the mean
        probability on each key, and entropies (batch, head) in bits; ``mass`` (batch, head, query
        group, key group), whose rows sum to 1.

    Raises:
        InputError: shapes, layout, pairs or heads that do not fit.
        VerificationError: probabilities do not sum to 1.

    Examples:
        >>> import torch
        >>> projection = torch.nn.Linear(16, 48)
        >>> tokens = torch.randn(1, 3 + 4 + 4, 16)
        >>> q, k, v = projection(tokens).reshape(1, 11, 3, 2, 8).unbind(2)
        >>> layout = rp.TokenLayout(3, rp.Grid(2, 2), (rp.Grid(2, 2),))
        >>> found = rp.read_attention(q, k, v, layout)
        >>> score = found.pairs["generation", "reference"].score
        >>> tuple(score.shape), bool(torch.allclose(score.sum(-1), found.mass[:, :, 1, 2]))
        ((1, 2, 4), True)
    """
    tensors = [query, key, value]
    if any(not isinstance(each, torch.Tensor) or each.ndim != 4 for each in tensors):
        raise InputError(
            "query, key and value must be tensors of four axes, not "
            f"{[tuple(each.shape) if hasattr(each, 'shape') else each for each in tensors]}."
        )
    if heads_first:
        tensors = [each.transpose(1, 2) for each in tensors]
    with torch.no_grad():
        found = attend(
            tensors[0], tensors[1], tensors[2], layout, pairs=pairs, scale=scale, heads=heads
        )
    return replace(found, output=found.output.transpose(1, 2)) if heads_first else found
