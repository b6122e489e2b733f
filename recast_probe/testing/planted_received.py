"""Received attention without a model, with sinks where they were put."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles.received import ReceivedAttention

LAYOUT = TokenLayout(6, Grid(4, 4), (Grid(4, 4),))


def planted_received(
    seed: int,
    high: Sequence[int] = (),
    *,
    content: int = 0,
    height: float = 12.0,
    heads: float = 1.0,
    selection: str = "planted",
) -> ReceivedAttention:
    """Two steps, two blocks and two heads; the last two text tokens are padding.

    Args:
        seed: of the noise, and of where content draws attention.
        high: places in the sequence of 38 tokens that draw ``height`` times what others do.
        content: how many other tokens do so, at places of this run alone.
        heads: share of the (step, block, head) in which they do.

    Examples:
        >>> planted_received(0, high=[0]).per_token().values.argmax()
        np.int64(0)
    """
    random = np.random.default_rng(seed)
    values = 1 + 0.2 * random.random((2, 2, 2, LAYOUT.total))
    drawn = random.choice(LAYOUT.total, content, replace=False)
    places = [*high, *drawn.tolist()]
    flat = values.reshape(8, -1)
    flat[: round(8 * heads), places] = height
    return ReceivedAttention.build(
        values / values.sum(-1, keepdims=True),
        layout=LAYOUT,
        text_parts=np.array(["prompt"] * 4 + ["padding"] * 2),
        steps=[0, 1],
        blocks=[0, 1],
        heads=[0, 1],
        selection=selection,
    )
