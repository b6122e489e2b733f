"""How alike the rankings of several profiles, steps, blocks or heads are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns

from recast_probe.errors import InputError
from recast_probe.figures.style import (
    GRID,
    Chart,
    agreement_colours,
    bare_bar,
    chart,
    heat_colours,
    house_style,
)

if TYPE_CHECKING:
    from recast_probe.diagnostics import Stability

METRICS = {
    "spearman": "Spearman correlation",
    "kendall": "Kendall correlation",
    "jaccard": "Jaccard index of the top tokens",
    "rank_biased_overlap": "Rank-biased overlap",
}


def stability_matrix(result: Stability, metric: str = "spearman") -> Chart:
    """Heat map of one agreement measure between all pairs.

    `metric` is "spearman", "kendall", "jaccard" or "rank_biased_overlap"; InputError otherwise.
    """
    if metric not in METRICS:
        raise InputError(f"Unknown metric {metric!r}; choose one of {', '.join(METRICS)}.")
    matrix = getattr(result, metric)
    labels = [str(label) for label in np.asarray(matrix[matrix.dims[0]])]
    count = len(labels)
    interval = getattr(result, f"mean_{metric}", None)
    note = f"{METRICS[metric]} of every pair"
    if interval is not None:
        note += (
            f"; mean {interval.mean:.2f}, {interval.confidence:.0%} interval "
            f"{interval.low:.2f} to {interval.high:.2f}"
        )
    correlation = metric in ("spearman", "kendall")
    small = count <= 12
    side = max(3.2, min(0.46 * count, 7.2))
    longest = max(len(label) for label in labels)
    with house_style():
        figure = chart(
            side + 1.0 + 0.068 * longest,
            side + 0.3 + 0.045 * longest,
            title="How alike the rankings are",
            note=f"{note}.",
            selection=result.selection,
        )
        axes = figure.subplots()
        sns.heatmap(
            np.asarray(matrix, dtype=float),
            ax=axes,
            mask=np.eye(count, dtype=bool),
            cmap=agreement_colours() if correlation else heat_colours(),
            vmin=-1 if correlation else 0,
            vmax=1,
            square=True,
            annot=small,
            fmt=".2f",
            annot_kws={"size": 8.5 if count <= 8 else 7},
            linewidths=1.5 if count <= 20 else 0,
            linecolor="white",
            xticklabels=labels if count <= 40 else False,
            yticklabels=labels if count <= 40 else False,
            cbar_kws={"shrink": 0.6, "aspect": 20, "pad": 0.03},
        )
        bare_bar(axes.collections[0].colorbar)
        axes.set_facecolor(GRID)
        axes.set_anchor("W")
        axes.tick_params(length=0)
        axes.tick_params(axis="y", rotation=0)
        axes.tick_params(axis="x", rotation=45 if longest > 4 else 0)
        if longest > 4:
            for text in axes.get_xticklabels():
                text.set_horizontalalignment("right")
                text.set_rotation_mode("anchor")
        axes.set(xlabel="", ylabel="")
        axes.grid(False)
    return figure
