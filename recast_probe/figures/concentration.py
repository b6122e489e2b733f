"""How unevenly the attention is spread over the reference tokens."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MultipleLocator

from recast_probe.diagnostics.skew import top_words
from recast_probe.errors import InputError
from recast_probe.figures.style import (
    INK,
    PALETTE,
    SECONDARY,
    Chart,
    chart,
    house_style,
)

if TYPE_CHECKING:
    from recast_probe.diagnostics import Skew


def lorenz(result: Skew | Mapping[str, Skew]) -> Chart:
    """Lorenz curve of the mean score: the share of attention held by the most attended tokens.

    One Skew, or several by name (one curve each). The marked point is the Skew's top tokens.
    Raises InputError for an empty mapping.
    """
    if isinstance(result, Mapping) and not result:
        raise InputError("lorenz needs at least one Skew.")
    named = result if isinstance(result, Mapping) else {"": result}
    first = next(iter(named.values()))
    selections = list(dict.fromkeys(skew.selection for skew in named.values()))
    with house_style():
        figure = chart(
            4.7,
            4.2,
            title="How much attention the top tokens hold",
            note="From the most to the least attended token. Dashed: an equal share.",
            selection="; ".join(selections),
        )
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=SECONDARY, linewidth=1, linestyle=(0, (4, 3)))
        for (name, skew), colour in zip(named.items(), cycle(PALETTE), strict=False):
            share = np.asarray(skew.lorenz["token_share"])
            mass = np.asarray(skew.lorenz)
            axes.plot(share, mass, color=colour, label=f"{name}: Gini {_two(skew)}", zorder=3)
            if len(named) == 1:
                axes.fill_between(share, share, mass, color=colour, alpha=0.08, linewidth=0)
            top = skew.top_share_of_mean_score
            place = skew.counted
            axes.plot([place], [top], "o", markersize=7, color=colour, markeredgecolor="white")
        if len(named) == 1:
            top = first.top_share_of_mean_score
            place = first.counted
            axes.plot([place] * 2, [0, top], color=PALETTE[0], linewidth=0.9, alpha=0.6)
            lines = (
                (f"The {top_words(first.tokens, first.fraction)}", INK, "bold"),
                (f"hold {top:.0%} of the attention.", INK, "bold"),
                (f"Gini {_two(first)}", SECONDARY, "normal"),
            )
            for place, (text, colour, weight) in zip((0.2, 0.13, 0.05), lines, strict=True):
                axes.text(0.98, place, text, ha="right", color=colour, weight=weight)
        else:
            axes.legend(
                loc="lower right",
                title=f"Points: {top_words(first.tokens, first.fraction)}",
                alignment="left",
            )
        axes.set(
            xlim=(0, 1),
            ylim=(0, 1.005),
            xlabel="Share of reference tokens",
            ylabel="Share of attention",
            aspect="equal",
            anchor="W",
        )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MultipleLocator(0.25))
            axis.set_major_formatter("{x:.0%}")
    return figure


def _two(skew: Skew) -> str:
    return f"{skew.gini_of_mean_score:.2f}"
