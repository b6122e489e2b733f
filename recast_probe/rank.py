"""Rankings of reference tokens, as `recast_probe.rank.cross_image(profile)`."""

from __future__ import annotations

from recast_probe.experiments.oracle import causal_oracle
from recast_probe.selection.baselines import RandomPerStep, mask_oracle, uniform_grid
from recast_probe.selection.rankings import (
    Ranking,
    cosine,
    cross_image,
    random,
    self_attention,
    single_block,
)
from recast_probe.selection.single_blocks import SingleBlocks, single_blocks

__all__ = [
    "RandomPerStep",
    "Ranking",
    "SingleBlocks",
    "causal_oracle",
    "cosine",
    "cross_image",
    "mask_oracle",
    "random",
    "self_attention",
    "single_block",
    "single_blocks",
    "uniform_grid",
]
