"""Rankings of reference tokens, as `recast_probe.rank.cross_image(profile)`."""

from __future__ import annotations

from recast_probe.selection.baselines import RandomPerStep, mask_oracle, uniform_grid
from recast_probe.selection.rankings import (
    Ranking,
    cosine,
    cross_image,
    random,
    self_attention,
    single_block,
)

__all__ = [
    "RandomPerStep",
    "Ranking",
    "cosine",
    "cross_image",
    "mask_oracle",
    "random",
    "self_attention",
    "single_block",
    "uniform_grid",
]
