"""What a model's config alone says: parameters, work, bounds and limits."""

from __future__ import annotations

from recast_probe.arithmetic.config import FluxConfig, flux_kontext_dev
from recast_probe.arithmetic.limits import (
    entropy_range,
    eq_4_mean,
    gamma_for_mean,
    largest_top_share,
)
from recast_probe.arithmetic.work import Work, readout_work, run_work, step_work

__all__ = [
    "FluxConfig",
    "Work",
    "entropy_range",
    "eq_4_mean",
    "flux_kontext_dev",
    "gamma_for_mean",
    "largest_top_share",
    "readout_work",
    "run_work",
    "step_work",
]
