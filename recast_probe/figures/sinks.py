"""Attention sinks: what each token of the sequence receives, and where attention goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recast_probe.figures import style

if TYPE_CHECKING:
    from recast_probe.diagnostics import Sinks

COLOURS = {"text": style.ORANGE, "generation": style.GREY, "reference": style.BLUE}


@style.house_style()
def plot_sinks(result: Sinks, *, axes: style.PanelAxes = None) -> Figure:
    """In how many heads each token stands out, and shares of attention beside shares of tokens.

    Examples:
        >>> from recast_probe.testing.planted_received import planted_received
        >>> figure = plot_sinks(rp.sinks([planted_received(seed, [0]) for seed in range(6)]))
        >>> [panel.get_xlabel() for panel in figure.axes]
        ['Token of the sequence', 'Share of attention']
    """
    tokens, parts = style.panels(
        axes,
        2,
        9.2,
        3.8,
        title="Do some tokens draw attention whatever they hold?",
        note=(
            f"Left: share of heads in which a token gets {result.times:g} times the mean or more, "
            f"mean over {result.prevalence.sizes['run']} runs; rings: sinks. Right: dots with 95 % "
            "intervals, attention; bars, what an even share would be."
        ),
        selection=f"{result.selection}, attention from {result.queries} tokens",
        width_ratios=[1.7, 1],
    )
    _draw_tokens(tokens, result)
    _draw_parts(parts, result)
    return style.figure_of(tokens)


def _draw_tokens(axes: Axes, result: Sinks) -> None:
    height = result.prevalence.mean("run").values
    groups, place = result.prevalence["group"].values, np.arange(len(height))
    for group, colour in COLOURS.items():
        chosen = groups == group
        if chosen.any():
            axes.plot(place[chosen], height[chosen], ".", color=colour, label=group)
    found = result.is_sink.values
    axes.plot(place[found], height[found], "o", mfc="none", color=style.INK, markersize=9)
    axes.axhline(result.share, color=style.INK, linewidth=0.8, linestyle=":")
    axes.set(xlabel="Token of the sequence", ylabel="Share of heads", ylim=(-0.02, 1.02))
    axes.legend(loc="upper right")


def _draw_parts(axes: Axes, result: Sinks) -> None:
    names = list(result.mass)
    even = [result.tokens[name] for name in names]
    axes.barh(range(len(names)), even, 0.6, color=style.HAIRLINE)
    for place, name in enumerate(names):
        found = result.mass[name]
        if np.isfinite([found.low, found.high]).all():
            axes.hlines(place, found.low, found.high, color=style.BLUE, linewidth=2.4)
        axes.plot(found.mean, place, "o", color=style.BLUE)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="Share of attention", ylim=(len(names) - 0.5, -0.5))
    axes.set_xlim(left=0)
    axes.grid(False)
