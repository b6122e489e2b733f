"""Insertion and deletion curves of rankings, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from recast_probe.diagnostics import Interval
from recast_probe.errors import InputError
from recast_probe.figures.style import PanelAxes, arm_colours, figure_of, house_style, panels


@house_style()
def plot_faithfulness(
    shares: Sequence[float],
    insertion: Mapping[str, Sequence[Interval]],
    deletion: Mapping[str, Sequence[Interval]],
    *,
    score: str,
    selection: str,
    axes: PanelAxes = None,
) -> Figure:
    """Means with their intervals, by ranking, against the share of reference tokens. Two panels.

    Args:
        shares: of the reference tokens, 0..1, one for each point of a curve.
        insertion, deletion: the points of each ranking's curve.
        score: name of the values.

    Raises:
        InputError: no ranking, different rankings, or different numbers of points.

    Examples:
        >>> curve = [rp.Interval(mean, mean - 0.1, mean + 0.1, 0.95, 5) for mean in (0.2, 0.6, 0.9)]
        >>> curves = {"cross-image": curve}
        >>> options = {"score": "Cosine", "selection": "5 subjects"}
        >>> len(plot_faithfulness([0.1, 0.5, 1.0], curves, curves, **options).axes)
        2
    """
    named = {"Best tokens inserted": insertion, "Best tokens deleted": deletion}
    points = [each for part in named.values() for each in part.values()]
    if not points or set(insertion) != set(deletion):
        raise InputError("Give the same rankings for insertion and deletion, at least one.")
    if any(len(each) != len(shares) for each in points):
        raise InputError("Every curve needs one value for each share.")
    drawn = panels(
        axes,
        2,
        9.6,
        3.6,
        title="Do the best tokens matter most?",
        note="A faithful ranking rises early on the left and falls early on the right.",
        selection=selection,
        sharey=True,
    )
    colours = arm_colours(insertion)
    for panel, (title, curves) in zip(drawn, named.items(), strict=True):
        for name, intervals in curves.items():
            low, high = ([getattr(i, end) for i in intervals] for end in ("low", "high"))
            mean = [interval.mean for interval in intervals]
            if np.isfinite(low).any():  # no band where an end cannot be told
                panel.fill_between(shares, low, high, color=colours[name], alpha=0.07, linewidth=0)
            panel.plot(shares, mean, "o-", markersize=3.5, color=colours[name], label=name)
        panel.set(title=title, xlabel="Share of the reference tokens", xlim=(0, 1))
        panel.xaxis.set_major_formatter("{x:.0%}")
    drawn[0].set_ylabel(score)
    drawn[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure_of(drawn[0])
