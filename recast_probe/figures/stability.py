"""How alike the rankings of several profiles, steps, blocks or heads are."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recast_probe.errors import InputError
from recast_probe.figures import style
from recast_probe.figures.arguments import figure_function

if TYPE_CHECKING:
    from recast_probe.diagnostics import Stability

METRICS = {
    "spearman": "Spearman correlation",
    "kendall": "Kendall correlation",
    "jaccard": "Jaccard index of the top tokens",
    "rank_biased_overlap": "Rank-biased overlap",
}


@figure_function
def plot_stability(
    result: Stability, metric: str = "spearman", *, axes: style.PanelAxes = None
) -> Figure:
    """Heat map of one agreement measure between all pairs.

    Args:
        metric: "spearman", "kendall", "jaccard" or "rank_biased_overlap".

    Raises:
        InputError: an unknown metric.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> profiles = [planted(np.roll(np.arange(16.0), shift)) for shift in (0, 1, 2)]
        >>> figure = plot_stability(rp.stability(profiles, ["a fox", "a hen", "a cat"]))
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['a fox', 'a hen', 'a cat']
    """
    if metric not in METRICS:
        raise InputError(f"Unknown metric {metric!r}; choose one of {', '.join(METRICS)}.")
    matrix = getattr(result, metric)
    labels = [textwrap.shorten(str(label), 32, placeholder="...") for label in matrix["a"].values]
    interval = getattr(result, f"mean_{metric}")
    note = f"{METRICS[metric]} of every pair; mean {interval.mean:.2f}"
    if np.isfinite(interval.low):
        note += (
            f", {interval.confidence:.0%} interval {interval.low:.2f} to {interval.high:.2f}, "
            f"{interval.count} rankings"
        )
    count = len(labels)
    named = count <= 40
    side = max(2.4, min(0.46 * count, 7.2))
    wide = max(style.text_width(label, 8.5) for label in labels) if named else 0.0
    slanted = wide > 0.8 * side / count
    left = wide + 0.12
    below = (0.72 * wide if slanted else 0.12) + 0.16
    bar_axes: Axes | None = None
    if axes is None:
        figure = style.chart(
            max(left + side + 0.75, 4.2),
            side + below,
            title="How alike the rankings are",
            note=f"{note}.",
            selection=result.selection,
            exact=True,
        )
        panel = figure.place(left, 0, side, side)
        bar_axes = figure.place(left + side + 0.16, 0, 0.13, min(side, 2.4))
    else:
        (panel,) = style.given_axes(axes, 1)
    correlation = metric in ("spearman", "kendall")
    sns.heatmap(
        np.asarray(matrix, dtype=float),
        ax=panel,
        cbar_ax=bar_axes,
        mask=np.eye(count, dtype=bool),
        cmap=style.agreement_colours() if correlation else style.heat_colours(),
        vmin=-1 if correlation else 0,
        vmax=1,
        annot=count <= 12,
        fmt=".2f",
        annot_kws={"size": 8.5 if count <= 8 else 7},
        linewidths=1.5 if count <= 20 else 0,
        linecolor="white",
        xticklabels=labels if named else False,
        yticklabels=labels if named else False,
    )
    style.bare_bar(panel.collections[0].colorbar)
    panel.set_facecolor(style.GRID)
    panel.tick_params(length=0)
    panel.tick_params(axis="y", rotation=0)
    panel.tick_params(axis="x", rotation=45 if slanted else 0)
    if slanted:
        for text in panel.get_xticklabels():
            text.set_horizontalalignment("right")
            text.set_rotation_mode("anchor")
    panel.set(xlabel="", ylabel="")
    panel.grid(False)
    return style.figure_of(panel)
