"""The arms of an experiment compared on the same subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.figure import Figure

from recast_probe.errors import InputError
from recast_probe.figures import style

if TYPE_CHECKING:
    from recast_probe.diagnostics import Interval

BESIDE = 0.16
UPRIGHT = 6  # more arms stand in rows, which leave room for their names


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

    Up to six arms stand beside each other, more below each other.

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
    upright = len(arms) <= UPRIGHT
    (panel,) = style.panels(
        axes,
        1,
        max(4.6, 1.25 * len(arms) + 0.9) if upright else 7.4,
        3.6 if upright else 0.42 * len(arms) + 0.6,
        title="How much of the subject each arm keeps",
        note=note,
        selection=selection,
    )

    def draw(places: np.ndarray, scores: np.ndarray, *marks: str, **look: Any) -> None:
        """Arms across and scores up, or scores across and arms down."""
        panel.plot(*((places, scores) if upright else (scores, places)), *marks, **look)

    places = np.arange(len(arms))
    strength = float(np.clip(12 / max(table.shape[1], 1), 0.12, 0.7))
    draw(places, table, color=style.SECONDARY, alpha=0.45 * strength, linewidth=0.8, zorder=2)
    for place, arm in zip(places, arms, strict=True):
        colour, interval = colours[arm], intervals[arm]
        # the mean stands beside the subjects, to hide none of them
        beside = np.array([place + BESIDE])
        draw(
            np.full(table.shape[1], place),
            table[place],
            "o",
            color=colour,
            alpha=0.8 * strength,
            markersize=3.5,
            markeredgewidth=0,
            zorder=3,
        )
        ends = np.array([interval.low, interval.high])
        draw(beside.repeat(2), ends, color=colour, linewidth=3.6, zorder=5)
        draw(
            beside,
            np.array([interval.mean]),
            "o",
            color=colour,
            markersize=8.5,
            markeredgecolor="white",
            markeredgewidth=1.6,
            zorder=6,
        )
        if upright:
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
        else:
            panel.text(
                1.01,
                place + BESIDE,
                f"{interval.mean:.2f}",
                transform=panel.get_yaxis_transform(),
                va="center",
                weight="bold",
                color=style.INK,
            )
    along: Literal["x", "y"] = "x" if upright else "y"
    across: Literal["x", "y"] = "y" if upright else "x"
    panel.set(**{f"{along}lim": (-0.35, len(arms) - 0.35), f"{across}label": metric})
    panel.set(**{f"{along}ticks": places, f"{along}ticklabels": arms})
    panel.tick_params(axis=along, length=0, labelcolor=style.INK, labelsize=9.5)
    panel.grid(False, axis=along)
    panel.grid(True, axis=across)
    if not upright:
        panel.invert_yaxis()
    panel.spines["bottom"].set_color(style.HAIRLINE)
    return style.figure_of(panel)
