"""Profiles in, labelled results out. No model, no file, no figure."""

from __future__ import annotations

from recast_probe.diagnostics.copying import CopyHeads, copy_heads
from recast_probe.diagnostics.correspondence import Correspondence, correspondence
from recast_probe.diagnostics.entropy import Entropy, entropy, mutual_information
from recast_probe.diagnostics.flow import Flow, flow
from recast_probe.diagnostics.inference import (
    PairedDifference,
    bootstrap_mean,
    paired_difference,
    sign_flip_p_value,
    toroidal_shifts,
)
from recast_probe.diagnostics.intervals import (
    Interval,
    difference_interval,
    interval_text,
    mean_interval,
    ratio_interval,
)
from recast_probe.diagnostics.jackknife import mean_of_pairs, spearman_interval
from recast_probe.diagnostics.nulls import center_prior
from recast_probe.diagnostics.overlap import Overlap, mask_to_grid, overlap
from recast_probe.diagnostics.position import PositionControl, position_control
from recast_probe.diagnostics.reading import reading
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
    "PositionControl",
    "Skew",
    "Stability",
    "Survey",
    "bootstrap_mean",
    "center_prior",
    "copy_heads",
    "correspondence",
    "difference_interval",
    "entropy",
    "flow",
    "interval_text",
    "mask_to_grid",
    "mean_interval",
    "mean_of_pairs",
    "mutual_information",
    "overlap",
    "paired_difference",
    "position_control",
    "ratio_interval",
    "reading",
    "sign_flip_p_value",
    "skew",
    "spearman_interval",
    "stability",
    "stability_over",
    "survey",
    "toroidal_shifts",
]
