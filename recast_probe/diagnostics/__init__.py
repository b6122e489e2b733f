"""Profiles in, labelled results out. No model, no file, no figure."""

from __future__ import annotations

from recast_probe.diagnostics.copying import CopyHeads, copy_heads
from recast_probe.diagnostics.correspondence import Correspondence, correspondence
from recast_probe.diagnostics.entropy import Entropy, entropy
from recast_probe.diagnostics.flow import Flow, flow
from recast_probe.diagnostics.inference import (
    Interval,
    PairedDifference,
    bootstrap_mean,
    paired_difference,
    toroidal_shifts,
)
from recast_probe.diagnostics.overlap import Overlap, mask_to_grid, overlap
from recast_probe.diagnostics.reading import reading, spearman_interval
from recast_probe.diagnostics.skew import Skew, skew
from recast_probe.diagnostics.stability import Stability, stability, stability_over
from recast_probe.diagnostics.survey import Survey, survey

__all__ = [
    "CopyHeads",
    "Correspondence",
    "Entropy",
    "Flow",
    "Interval",
    "Overlap",
    "PairedDifference",
    "Skew",
    "Stability",
    "Survey",
    "bootstrap_mean",
    "copy_heads",
    "correspondence",
    "entropy",
    "flow",
    "mask_to_grid",
    "overlap",
    "paired_difference",
    "reading",
    "skew",
    "spearman_interval",
    "stability",
    "stability_over",
    "survey",
    "toroidal_shifts",
]
