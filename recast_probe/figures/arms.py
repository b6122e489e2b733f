"""The arms of an experiment compared on the same subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from recast_probe.errors import InputError
from recast_probe.figures import style

if TYPE_CHECKING:
    from recast_probe.diagnostics import Interval

# The mean stands beside the subjects, to hide none of them.
BESIDE = 0.16


@style.house_style()
def plot_arms(
    values: Mapping[str, Sequence[float]],
    intervals: Mapping[str, Interval],
    *,
    metric: str,
    selection: str,
    note: str = "",
    axes: style.PanelAxes = None,
) -> Figure:
    """Mean with its interval for every arm, over faint lines that follow each subject.

    Args:
        values: one number a subject for every arm, in the same order of subjects (paired).
        intervals: the arms' intervals.
        metric: name of the values, with its unit where there is one.

    Raises:
        InputError: counts or names differ.

    Examples:
        >>> values = {"ReCAST": [0.8, 0.9, 0.7], "none": [0.3, 0.4, 0.2]}
        >>> intervals = {arm: rp.bootstrap_mean(each) for arm, each in values.items()}
        >>> figure = plot_arms(values, intervals, metric="Cosine", selection="3 subjects")
        >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
        ['ReCAST', 'none']
    """
    counts = {arm: len(scores) for arm, scores in values.items()}
    if len(set(counts.values())) != 1 or set(values) != set(intervals):
        raise InputError(
            f"Every arm needs one interval and the same number of subjects; got values {counts} "
            f"and intervals for {', '.join(intervals)}."
        )
    arms = list(values)
    table = np.array([values[arm] for arm in arms], dtype=float)
    colours = style.arm_colours(arms)
    confidence = intervals[arms[0]].confidence
    if not note:
        note = (
            f"Large points: mean over {table.shape[1]} subjects with its {confidence:.0%} "
            "interval. Each faint line is one subject."
        )
    (panel,) = style.panels(
        axes,
        1,
        max(4.6, 1.25 * len(arms) + 0.9),
        3.6,
        title="How much of the subject each arm keeps",
        note=note,
        selection=selection,
    )
    places = np.arange(len(arms))
    strength = float(np.clip(12 / max(table.shape[1], 1), 0.12, 0.7))
    panel.plot(places, table, color=style.SECONDARY, alpha=0.45 * strength, linewidth=0.8, zorder=2)
    for place, arm in zip(places, arms, strict=True):
        panel.plot(
            np.full(table.shape[1], place),
            table[place],
            "o",
            color=colours[arm],
            alpha=0.8 * strength,
            markersize=3.5,
            markeredgewidth=0,
            zorder=3,
        )
        interval = intervals[arm]
        panel.plot(
            [place + BESIDE] * 2,
            [interval.low, interval.high],
            color=colours[arm],
            linewidth=3.6,
            zorder=5,
        )
        panel.plot(
            [place + BESIDE],
            [interval.mean],
            "o",
            color=colours[arm],
            markersize=8.5,
            markeredgecolor="white",
            markeredgewidth=1.6,
            zorder=6,
        )
        panel.annotate(
            f"{interval.mean:.2f}",
            (place + BESIDE, interval.mean),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            weight="bold",
            color=style.INK,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
            zorder=7,
        )
    panel.set_xticks(places, arms)
    panel.tick_params(axis="x", length=0, labelcolor=style.INK, labelsize=9.5)
    panel.set(xlim=(-0.35, len(arms) - 0.35), ylabel=metric)
    panel.spines["bottom"].set_color(style.HAIRLINE)
    return style.figure_of(panel)
