"""Profiles in, labelled results out. No model, no file, no figure."""

from __future__ import annotations

from recast_probe.diagnostics.entropy import Entropy, entropy
from recast_probe.diagnostics.inference import (
    Interval,
    PairedDifference,
    bootstrap_mean,
    paired_difference,
    toroidal_shifts,
)
from recast_probe.diagnostics.overlap import Overlap, mask_to_grid, overlap
from recast_probe.diagnostics.skew import Skew, skew
from recast_probe.diagnostics.stability import Stability, stability, stability_over

__all__ = [
    "Entropy",
    "Interval",
    "Overlap",
    "PairedDifference",
    "Skew",
    "Stability",
    "bootstrap_mean",
    "entropy",
    "mask_to_grid",
    "overlap",
    "paired_difference",
    "skew",
    "stability",
    "stability_over",
    "toroidal_shifts",
]
