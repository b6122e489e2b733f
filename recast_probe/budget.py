"""Budgets of reference tokens, as `recast_probe.budget.inverted(...)`."""

from __future__ import annotations

from recast_probe.selection.budget_language import PaperSchedule, Share, as_budget, budget_of
from recast_probe.selection.budgets import Adaptive, Aligned, Budget, Fixed
from recast_probe.selection.mass import MassShare, mass_threshold, mass_threshold_per_step
from recast_probe.selection.schedules import (
    Listed,
    entropy_matched,
    flat,
    inverted,
    matched,
    total_of,
    with_cost,
    with_total,
)

__all__ = [
    "Adaptive",
    "Aligned",
    "Budget",
    "Fixed",
    "Listed",
    "MassShare",
    "PaperSchedule",
    "Share",
    "as_budget",
    "budget_of",
    "entropy_matched",
    "flat",
    "inverted",
    "mass_threshold",
    "mass_threshold_per_step",
    "matched",
    "total_of",
    "with_cost",
    "with_total",
]
