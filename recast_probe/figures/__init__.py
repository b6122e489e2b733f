"""Figures: one function each, from results to a matplotlib Figure that prints its selection."""

from recast_probe.figures.agreement import stability_matrix
from recast_probe.figures.arms import identity_by_arm
from recast_probe.figures.budgets import budget_curve
from recast_probe.figures.causal_map import causal_heat_map
from recast_probe.figures.concentration import lorenz
from recast_probe.figures.drifting import drift_by_block
from recast_probe.figures.entropies import entropy_curves
from recast_probe.figures.faithfulness import faithfulness_curves
from recast_probe.figures.ground_truth import overlap
from recast_probe.figures.heads import attribution_map, copying_heads, head_map
from recast_probe.figures.images import image_grid
from recast_probe.figures.importance import importance_over_reference
from recast_probe.figures.paths import flow_paths
from recast_probe.figures.saving import save_figure
from recast_probe.figures.style import house_style
from recast_probe.figures.token_strips import importance_by_token
from recast_probe.figures.vector_field import correspondence_field

__all__ = [
    "attribution_map",
    "budget_curve",
    "causal_heat_map",
    "copying_heads",
    "correspondence_field",
    "drift_by_block",
    "entropy_curves",
    "faithfulness_curves",
    "flow_paths",
    "head_map",
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
