"""Profiles in, labelled results out. No model, no file, no figure.

Most take an `AttentionProfile` or a plain `xarray.DataArray` of scores. Select first, then
diagnose: ``skew(profile.sel(blocks="single", steps=0))``.
"""

from __future__ import annotations

from recast_probe.diagnostics.alignment import Alignment as Alignment
from recast_probe.diagnostics.alignment import alignment as alignment
from recast_probe.diagnostics.copying import CopyHeads as CopyHeads
from recast_probe.diagnostics.copying import copy_heads as copy_heads
from recast_probe.diagnostics.correspondence import Correspondence as Correspondence
from recast_probe.diagnostics.correspondence import correspondence as correspondence
from recast_probe.diagnostics.entropy import Entropy as Entropy
from recast_probe.diagnostics.entropy import entropy as entropy
from recast_probe.diagnostics.entropy import mutual_information as mutual_information
from recast_probe.diagnostics.flow import Flow as Flow
from recast_probe.diagnostics.flow import flow as flow
from recast_probe.diagnostics.inference import PairedDifference as PairedDifference
from recast_probe.diagnostics.inference import bootstrap_mean as bootstrap_mean
from recast_probe.diagnostics.inference import paired_difference as paired_difference
from recast_probe.diagnostics.inference import sign_flip_p_value as sign_flip_p_value
from recast_probe.diagnostics.inference import toroidal_shifts as toroidal_shifts
from recast_probe.diagnostics.intervals import Interval as Interval
from recast_probe.diagnostics.intervals import difference_interval as difference_interval
from recast_probe.diagnostics.intervals import interval_text as interval_text
from recast_probe.diagnostics.intervals import mean_interval as mean_interval
from recast_probe.diagnostics.intervals import ratio_interval as ratio_interval
from recast_probe.diagnostics.jackknife import mean_of_pairs as mean_of_pairs
from recast_probe.diagnostics.jackknife import spearman_interval as spearman_interval
from recast_probe.diagnostics.nulls import center_prior as center_prior
from recast_probe.diagnostics.overlap import Overlap as Overlap
from recast_probe.diagnostics.overlap import mask_to_grid as mask_to_grid
from recast_probe.diagnostics.overlap import overlap as overlap
from recast_probe.diagnostics.position import PositionControl as PositionControl
from recast_probe.diagnostics.position import position_control as position_control
from recast_probe.diagnostics.reading import reading as reading
from recast_probe.diagnostics.results import Number as Number
from recast_probe.diagnostics.results import Result as Result
from recast_probe.diagnostics.results import Scores as Scores
from recast_probe.diagnostics.sinks import Sinks as Sinks
from recast_probe.diagnostics.sinks import sinks as sinks
from recast_probe.diagnostics.skew import Skew as Skew
from recast_probe.diagnostics.skew import skew as skew
from recast_probe.diagnostics.stability import Stability as Stability
from recast_probe.diagnostics.stability import stability as stability
from recast_probe.diagnostics.stability import stability_over as stability_over
from recast_probe.diagnostics.survey import Survey as Survey
from recast_probe.diagnostics.survey import survey as survey

OF_A_PROFILE = (skew, entropy)
"""What ``recast-probe diagnose`` says of every profile, in this order; each takes blocks=."""
