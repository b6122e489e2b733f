"""Figures: one function each, from results to a matplotlib Figure that prints its selection."""

from recast_probe.figures.agreement import stability_matrix
from recast_probe.figures.arms import identity_by_arm
from recast_probe.figures.budgets import budget_curve
from recast_probe.figures.concentration import lorenz
from recast_probe.figures.entropies import entropy_curves
from recast_probe.figures.ground_truth import overlap
from recast_probe.figures.images import image_grid
from recast_probe.figures.importance import importance_over_reference
from recast_probe.figures.saving import save_figure
from recast_probe.figures.style import house_style
from recast_probe.figures.token_strips import importance_by_token

__all__ = [
    "budget_curve",
    "entropy_curves",
    "house_style",
    "identity_by_arm",
    "image_grid",
    "importance_by_token",
    "importance_over_reference",
    "lorenz",
    "overlap",
    "save_figure",
    "stability_matrix",
]
