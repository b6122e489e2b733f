"""Rankings of reference tokens, as `recast_probe.rank.cross_image(profile)`."""

from __future__ import annotations

from recast_probe.selection.baselines import RandomPerStep, mask_oracle, uniform_grid
from recast_probe.selection.rankings import Ranking, cross_image, random

__all__ = [
    "RandomPerStep",
    "Ranking",
    "cross_image",
    "mask_oracle",
    "random",
    "uniform_grid",
]
