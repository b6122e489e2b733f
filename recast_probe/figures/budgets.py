"""How many reference tokens are computed at each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recast_probe.errors import InputError
from recast_probe.figures import style


@style.house_style()
def plot_budgets(
    tokens: Mapping[str, Sequence[int]],
    reference_tokens: int,
    *,
    selection: str,
    axes: style.PanelAxes = None,
) -> Figure:
    """Tokens kept per step for one or several runs by name; the thin dashed line is all of them.

    Runs that keep equally many at every step share a line, in dashes of their colours, and the note
    names them.

    Raises:
        InputError: no run, or a run without steps.

    Examples:
        >>> tokens = {"ReCAST": rp.Adaptive(16, 64).schedule(5)}
        >>> figure = plot_budgets(tokens, 256, selection="5 steps")
        >>> len(figure.axes)
        1
    """
    if not tokens or not all(len(schedule) for schedule in tokens.values()):
        raise InputError("plot_budgets needs at least one run with at least one step.")
    colours = style.arm_colours(tokens)
    longest = max(len(schedule) for schedule in tokens.values())
    alike: dict[tuple[int, ...], list[str]] = {}
    for name, schedule in tokens.items():
        alike.setdefault(tuple(schedule), []).append(name)
    together = [", ".join(names) for names in alike.values() if len(names) > 1]
    (panel,) = style.panels(
        axes,
        1,
        6.8,
        2.9,
        title="Reference tokens kept at each step",
        note="Fewer tokens make a step cheaper."
        + "".join(f" The same at every step, one line in dashes: {names}." for names in together),
        selection=selection,
    )
    panel.axhline(reference_tokens, color=style.SECONDARY, linewidth=1, linestyle=(0, (4, 3)))
    panel.annotate(
        f"All {reference_tokens:,} reference tokens",
        (longest - 0.5, reference_tokens),
        xytext=(0, 3),
        textcoords="offset points",
        ha="right",
        size=8.5,
        color=style.SECONDARY,
    )
    for name, schedule in tokens.items():
        edges = np.arange(len(schedule) + 1) - 0.5
        mean = float(np.mean(schedule))
        sharing = alike[tuple(schedule)]
        panel.stairs(
            schedule,
            edges,
            baseline=None,
            color=colours[name],
            linewidth=2.2,
            label=f"{name}, mean {mean:,.0f}",
            linestyle=_dashes(sharing.index(name), len(sharing)),
            zorder=3,
        )
        if len(tokens) == 1:
            panel.stairs(schedule, edges, fill=True, color=colours[name], alpha=0.1)
    panel.set(
        xlim=(-0.5, longest - 0.5),
        ylim=(0, reference_tokens * 1.12),
        xlabel="Step (noise to image)",
        ylabel="Reference tokens",
    )
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_yticks(np.linspace(0, reference_tokens, 5))
    panel.yaxis.set_major_formatter("{x:,.0f}")
    panel.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return style.figure_of(panel)


def _dashes(place: int, count: int) -> Any:
    """The dashes of one of so many lines that lie on each other; together they leave no gap."""
    return "solid" if count == 1 else (3 * place, (3, 3 * (count - 1)))
