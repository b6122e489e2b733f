"""How many reference tokens are computed at each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from recast_probe.errors import InputError
from recast_probe.figures.style import SECONDARY, Chart, arm_colours, chart, house_style


def budget_curve(
    tokens: Mapping[str, Sequence[int]],
    reference_tokens: int,
    *,
    selection: str,
    title: str = "Reference tokens kept at each step",
) -> Chart:
    """Tokens kept per step for one or several runs by name; the dashed line is all of them.

    Raises InputError when there is nothing to draw.
    """
    if not tokens or not all(len(schedule) for schedule in tokens.values()):
        raise InputError("budget_curve needs at least one run with at least one step.")
    colours = arm_colours(tokens)
    longest = max(len(schedule) for schedule in tokens.values())
    with house_style():
        figure = chart(
            6.8,
            2.9,
            title=title,
            note="Step 0 has the most noise. Fewer tokens make a step cheaper.",
            selection=selection,
        )
        axes = figure.subplots()
        axes.axhline(reference_tokens, color=SECONDARY, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"All {reference_tokens:,} reference tokens",
            (longest - 0.5, reference_tokens),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            size=8.5,
            color=SECONDARY,
        )
        for name, schedule in tokens.items():
            edges = np.arange(len(schedule) + 1) - 0.5
            mean = float(np.mean(schedule))
            axes.stairs(
                schedule,
                edges,
                baseline=None,
                color=colours[name],
                linewidth=2.2,
                label=f"{name}, mean {mean:,.0f}",
                zorder=3,
            )
            if len(tokens) == 1:
                axes.stairs(schedule, edges, fill=True, color=colours[name], alpha=0.1)
        axes.set(
            xlim=(-0.5, longest - 0.5),
            ylim=(0, reference_tokens * 1.12),
            xlabel="Step (noise to image)",
            ylabel="Reference tokens",
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_yticks(np.linspace(0, reference_tokens, 5))
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.legend(loc="upper right", bbox_to_anchor=(1, 0.88))
    return figure
