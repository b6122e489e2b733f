"""Figures: one function each, from a result to a matplotlib Figure that prints its selection.

Module and function bear the name of what they draw: ``diagnostics.skew`` is drawn by ``plot_skew``
in ``figures/skew.py``, which ``result.plot()`` calls.

Every function takes ``axes=``. None makes a new figure in the house style, with title, note and
selection around its panels. Otherwise give one matplotlib Axes for each panel, in reading order
(left to right, then down; a single panel's as it is): only the panels are drawn, and the figure
that the axes are in is returned. Colour bars take their room from the axes.
"""

from recast_probe.figures.alignment import plot_alignment as plot_alignment
from recast_probe.figures.arms import plot_arms as plot_arms
from recast_probe.figures.attention_map import plot_attention_map as plot_attention_map
from recast_probe.figures.attribution import plot_attribution as plot_attribution
from recast_probe.figures.budgets import plot_budgets as plot_budgets
from recast_probe.figures.causal_map import plot_causal_map as plot_causal_map
from recast_probe.figures.copying import plot_copy_heads as plot_copy_heads
from recast_probe.figures.correspondence import plot_correspondence as plot_correspondence
from recast_probe.figures.dose_response import plot_dose_response as plot_dose_response
from recast_probe.figures.drift import plot_drift as plot_drift
from recast_probe.figures.entropy import plot_entropy as plot_entropy
from recast_probe.figures.faithfulness import plot_faithfulness as plot_faithfulness
from recast_probe.figures.flow import plot_flow as plot_flow
from recast_probe.figures.gate import plot_gate as plot_gate
from recast_probe.figures.heads import plot_heads as plot_heads
from recast_probe.figures.images import plot_images as plot_images
from recast_probe.figures.importance import plot_importance as plot_importance
from recast_probe.figures.importance_by_token import (
    plot_importance_by_token as plot_importance_by_token,
)
from recast_probe.figures.overlap import plot_overlap as plot_overlap
from recast_probe.figures.saving import save_figure as save_figure
from recast_probe.figures.sinks import plot_sinks as plot_sinks
from recast_probe.figures.skew import plot_skew as plot_skew
from recast_probe.figures.stability import plot_stability as plot_stability
from recast_probe.figures.style import house_style as house_style
