"""Where in a run a patch decides: blocks down, steps across."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure

from recast_probe.errors import InputError
from recast_probe.figures import style


@style.house_style()
def plot_causal_map(
    maps: Mapping[str, xr.DataArray],
    *,
    selection: str,
    title: str = "Where a patch of the other run decides",
    axes: style.PanelAxes = None,
) -> Figure:
    """One panel a map, dimensions (block, step); colours from 0 to the largest value, or on both
    sides of 0 where a map has values that are below 0 when written with two digits.

    Values are written into the cells where there is room.

    Raises:
        InputError: no map, or maps of different windows.

    Examples:
        >>> places = {"block": [0, 1], "step": [0, 1]}
        >>> grid = xr.DataArray(np.eye(2), places, ("block", "step"))
        >>> figure = plot_causal_map({"identity": grid}, selection="seed 0")
        >>> figure.axes[0].get_ylabel()
        'Block'
    """
    if not maps:
        raise InputError("There is no map to draw.")
    first = next(iter(maps.values()))
    if any(each.dims != ("block", "step") or each.shape != first.shape for each in maps.values()):
        raise InputError("Maps have the dimensions (block, step) and the same windows.")
    rows, columns = first.shape
    wide, tall = max(2.6, 0.42 * columns + 0.9), max(1.6, 0.32 * rows + 0.6)
    # what is written; adding 0 takes the sign off a zero
    shown = {name: np.round(np.asarray(each, np.float64), 2) + 0.0 for name, each in maps.items()}
    highest = max(float(np.nanmax(np.abs(each))) for each in maps.values()) or 1.0
    below = any(np.nanmin(each) < 0 for each in shown.values())
    drawn = style.panels(
        axes,
        len(maps),
        wide * len(maps) + 0.5,
        tall,
        title=title,
        note="0: the run's own image. 1: the source run's.",
        selection=selection,
        sharey=True,
    )
    for panel, (name, values) in zip(drawn, maps.items(), strict=True):
        sns.heatmap(
            np.asarray(values, np.float64),
            ax=panel,
            cmap=style.agreement_colours() if below else style.heat_colours(),
            vmin=-highest if below else 0,
            vmax=highest,
            annot=shown[name] if columns <= 16 and rows <= 24 else False,
            fmt=".2f",
            annot_kws={"size": 7},
            linewidths=1,
            linecolor="white",
            cbar=panel is drawn[-1],
            xticklabels=values["step"].values.tolist(),
            yticklabels=values["block"].values.tolist(),
        )
        panel.set(title=name, xlabel="Step", ylabel="Block" if panel is drawn[0] else "")
        panel.tick_params(length=0)
        panel.tick_params(axis="y", rotation=0)
        panel.grid(False)
    style.bare_bar(drawn[-1].collections[0].colorbar)
    return style.figure_of(drawn[0])
