"""Whether a saving loses too little to matter, and what else costs as little."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from recast_probe.figures import style

if TYPE_CHECKING:
    from recast_probe.studies.gate.result import Gate

COLOURS = {"passes": style.GREEN, "fails": style.VERMILLION, "cannot tell": style.GREY}


@style.house_style()
def plot_gate(result: Gate, *, axes: style.PanelAxes = None) -> Figure:
    """Every subject's loss with the mean, its interval and the limit; and every arm's score
    against its work.

    Args:
        axes: two: losses, and scores against work.

    Examples:
        >>> from recast_probe.studies.gate.result import ArmCost, Gate
        >>> from recast_probe.studies.gate.noninferiority import non_inferiority
        >>> import numpy as np, pandas as pd
        >>> full = np.linspace(0.7, 0.9, 40)
        >>> test = non_inferiority(full, full - 0.1, 0.03, failure=0.3)
        >>> arms = (ArmCost("full", "", 2e12, 1.0, 0.8, 0.7, 0.9),)
        >>> scores = pd.DataFrame({"full": full, "reuse": full - 0.1})
        >>> found = Gate("tiny", "reuse", "identity", test, arms, (), {}, scores, scores, {})
        >>> figure = plot_gate(found)
        >>> [panel.get_xlabel() for panel in figure.axes]
        ['Loss of identity', 'FLOP, % of the full run']
    """
    test = result.test
    losses, work = style.panels(
        axes,
        2,
        9.2,
        3.4,
        title=f"{result.method}: {test.verdict}",
        note=(
            f"Left: what each subject loses (points), the mean with its {test.confidence:.0%} "
            f"interval over all looks, and the limit (line). It passes left of the line. Right: "
            f"mean {result.metric} of every arm with its 95% interval."
        ),
        selection=f"{result.model}, {test.subjects} subjects, look {test.look} of "
        f"{len(test.looks)}, limit {test.limit}",
    )
    # a relative limit is drawn on the metric's own scale
    unit = test.full if test.limit.relative else 1.0
    each = result.scores["full"] - result.scores[result.method]
    places = [0.35 + 0.5 * (number % 7) / 7 for number in range(len(each))]
    losses.plot(each, places, "o", color=style.SECONDARY, alpha=0.45, markersize=4)
    colour = COLOURS[test.verdict]
    if math.isfinite(test.low + test.high):
        losses.plot([test.low * unit, test.high * unit], [0.12] * 2, color=colour, linewidth=4)
    losses.plot([test.loss * unit], [0.12], "o", color=colour, markersize=9, markeredgecolor="w")
    losses.axvline(test.limit.value * unit, color=style.INK, linewidth=1.2)
    losses.axvline(0, color=style.HAIRLINE, linewidth=1, linestyle=":")
    losses.set(xlabel=f"Loss of {result.metric}", ylim=(0, 1), yticks=[])
    losses.grid(visible=False)
    colours = style.arm_colours([arm.arm for arm in result.arms])
    for arm in result.arms:
        share = 100 * arm.share
        if math.isfinite(arm.low + arm.high):
            work.plot([share] * 2, [arm.low, arm.high], color=colours[arm.arm], linewidth=1.6)
        work.plot([share], [arm.score], "o", color=colours[arm.arm], label=arm.arm, markersize=7)
    work.set(xlabel="FLOP, % of the full run", ylabel=f"Mean {result.metric}")
    work.legend(loc="best")
    return style.figure_of(losses)
