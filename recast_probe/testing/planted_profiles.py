"""Attention profiles with scores that a test chooses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles.profile import AttentionProfile

SQUARE = (Grid(4, 4),)


def planted(
    score: ArrayLike,
    grids: Sequence[Grid] = SQUARE,
    conditional: ArrayLike | None = None,
    blocks: Sequence[int] | None = None,
    weighted: ArrayLike | None = None,
) -> AttentionProfile:
    """A profile of these scores, (step, block, head, token) or anything that broadcasts to it.

    Args:
        score: leading axes may be left out; they get the size 1.
        conditional: conditional entropies (step, block, head), 0 by default.
        weighted: the mass-weighted ones; as `conditional` by default.
        blocks: block indices; 0, 1, ... by default.

    Raises:
        ValueError: shapes that do not fit each other.

    Examples:
        >>> planted(np.full((2, 3, 1, 16), 1 / 16)).score.shape
        (2, 3, 1, 16)
    """
    score = np.asarray(score, dtype=np.float64)
    score = score.reshape((1,) * (4 - score.ndim) + score.shape)
    steps, count, heads, _ = score.shape
    entropy = np.zeros((steps, count, heads)) if conditional is None else np.asarray(conditional)
    weights = entropy if weighted is None else np.asarray(weighted)
    indices = list(range(count)) if blocks is None else list(blocks)
    return AttentionProfile.build(
        score=score[None],
        mass=np.full((1, steps, count, heads, 3, 3), 1 / 3),
        conditional_entropy=np.broadcast_to(entropy, (steps, count, heads))[None],
        mass_weighted_conditional_entropy=np.broadcast_to(weights, (steps, count, heads))[None],
        steps=range(steps),
        timesteps=np.linspace(1000, 100, steps),
        sigmas=np.linspace(1, 0.1, steps),
        blocks=indices,
        block_kinds=["double"] + ["single"] * max(indices),
        heads=range(heads),
        layout=TokenLayout(3, Grid(4, 4), tuple(grids)),
    )
