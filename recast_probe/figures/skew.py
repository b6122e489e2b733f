"""How unevenly the attention is spread over the reference tokens."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from recast_probe.diagnostics.skew import top_words
from recast_probe.errors import InputError
from recast_probe.figures import style
from recast_probe.figures.arguments import figure_function

if TYPE_CHECKING:
    from recast_probe.diagnostics import Skew


@figure_function
def plot_skew(result: Skew | Mapping[str, Skew], *, axes: style.PanelAxes = None) -> Figure:
    """Lorenz curve of the mean score: the share of attention held by the most attended tokens.

    The marked point is the Skew's top tokens.

    Args:
        result: one Skew, or several by name (one curve each).

    Raises:
        InputError: an empty mapping.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> figure = plot_skew(rp.skew(planted(np.arange(16.0))))
        >>> figure.axes[0].get_xlabel()
        'Share of reference tokens'
    """
    if isinstance(result, Mapping) and not result:
        raise InputError("plot_skew needs at least one Skew.")
    named = result if isinstance(result, Mapping) else {"": result}
    first = next(iter(named.values()))
    selections = list(dict.fromkeys(skew.selection for skew in named.values()))
    (panel,) = style.panels(
        axes,
        1,
        4.7,
        4.2,
        title="How much attention the top tokens hold",
        note="From the most to the least attended token. Dashed: an equal share.",
        selection="; ".join(selections),
    )
    panel.plot([0, 1], [0, 1], color=style.SECONDARY, linewidth=1, linestyle=(0, (4, 3)))
    for (name, skew), colour in zip(named.items(), cycle(style.PALETTE), strict=False):
        share = np.asarray(skew.lorenz["token_share"])
        mass = np.asarray(skew.lorenz)
        panel.plot(share, mass, color=colour, label=f"{name}: Gini {_two(skew)}", zorder=3)
        if len(named) == 1:
            panel.fill_between(share, share, mass, color=colour, alpha=0.08, linewidth=0)
        top = skew.top_share_of_mean_score
        place = skew.counted
        panel.plot([place], [top], "o", markersize=7, color=colour, markeredgecolor="white")
    if len(named) == 1:
        top = first.top_share_of_mean_score
        place = first.counted
        panel.plot([place] * 2, [0, top], color=style.PALETTE[0], linewidth=0.9, alpha=0.6)
        lines = (
            (f"The {top_words(first.tokens, first.fraction)}", style.INK, "bold"),
            (f"hold {top:.0%} of the attention.", style.INK, "bold"),
            (f"Gini {_two(first)}", style.SECONDARY, "normal"),
        )
        for place, (text, colour, weight) in zip((0.2, 0.13, 0.05), lines, strict=True):
            panel.text(0.98, place, text, ha="right", color=colour, weight=weight)
    else:
        panel.legend(
            loc="lower right",
            title=f"Points: {top_words(first.tokens, first.fraction)}",
            alignment="left",
        )
    panel.set(
        xlim=(0, 1),
        ylim=(0, 1.005),
        xlabel="Share of reference tokens",
        ylabel="Share of attention",
        aspect="equal",
        anchor="W",
    )
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MultipleLocator(0.25))
        axis.set_major_formatter("{x:.0%}")
    return style.figure_of(panel)


def _two(skew: Skew) -> str:
    return f"{skew.gini_of_mean_score:.2f}"
