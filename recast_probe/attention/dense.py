"""The same statistics the slow, obvious way: a dense float64 softmax, for checking."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from recast_probe.attention.inputs import Cut
from recast_probe.attention.readout import GENERATION_TO_REFERENCE, PairStatistics, Readout
from recast_probe.layout import TokenLayout


def dense_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: TokenLayout,
    *,
    pairs: Sequence[tuple[str, str]] = GENERATION_TO_REFERENCE,
    scale: float | None = None,
    cuts: Sequence[Cut] = (),
) -> Readout:
    """What `attend` returns, in float64 from the whole attention matrix.

    Needs 8 bytes * batch * heads * sequence ** 2 of memory several times over: for tests and
    spot checks only.

    Args:
        query, key, value: (batch, sequence, head, dim), sequence as ``layout`` says.
        layout: the token groups.
        pairs: (query group, key group) pairs to score.
        scale: factor on the scores; 1 / sqrt(dim) by default.
        cuts: keys that some queries do not see.

    Raises:
        InputError: a group that the layout lacks.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> q, k, v = (torch.randn(1, 11, 2, 8, generator=generator) for _ in range(3))
        >>> layout = rp.TokenLayout(3, rp.Grid(2, 2), (rp.Grid(2, 2),))
        >>> from recast_probe.attention import attend
        >>> dense, streamed = dense_attention(q, k, v, layout), attend(q, k, v, layout)
        >>> bool(torch.allclose(dense.mass.float(), streamed.mass, atol=1e-6))
        True
    """
    q, k, v = (tensor.permute(0, 2, 1, 3).double() for tensor in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    scores = q @ k.transpose(-1, -2) * scale
    zeroed = torch.zeros_like(scores, dtype=torch.bool)
    for cut in cuts:
        heads = range(scores.shape[1]) if cut.heads is None else cut.heads
        for head in heads:
            edges = (slice(None), head, cut.queries[:, None], cut.keys)
            if cut.removal == "renormalised":
                scores[edges] = -torch.inf
            else:
                zeroed[edges] = True
    # a row of minus infinities sees nothing at all
    probability = scores.softmax(-1).nan_to_num(0.0)
    spans = {name: layout.span(name) for name in layout.groups}
    mass = torch.stack(
        [
            torch.stack(
                [probability[:, :, rows, columns].sum(-1).mean(-1) for columns in spans.values()],
                dim=-1,
            )
            for rows in spans.values()
        ],
        dim=-2,
    )
    statistics = {}
    for source, target in pairs:
        block = probability[:, :, layout.span(source), layout.span(target)]
        score = block.mean(-2)
        rows, masses = _bits(block).nan_to_num(0.0), block.sum(-1)
        weighted = (rows * masses).sum(-1) / masses.sum(-1)
        statistics[source, target] = PairStatistics(score, _bits(score), rows.mean(-1), weighted)
    output = (probability.masked_fill(zeroed, 0) @ v).permute(0, 2, 1, 3)
    error = float((probability.sum(-1) - 1).abs().max())
    return Readout(output, statistics, mass, layout.groups, error, "dense float64")


def _bits(weights: Tensor) -> Tensor:
    share = weights / weights.sum(-1, keepdim=True)
    return -torch.special.xlogy(share, share).sum(-1) / math.log(2)
