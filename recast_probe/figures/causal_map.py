"""Where in a run a patch decides: blocks down, steps across."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import seaborn as sns
import xarray as xr

from recast_probe.errors import InputError
from recast_probe.figures.style import (
    Chart,
    agreement_colours,
    bare_bar,
    chart,
    heat_colours,
    house_style,
)


def causal_heat_map(
    maps: Mapping[str, xr.DataArray],
    *,
    selection: str,
    title: str = "Where a patch of the other run decides",
    note: str = "0: the run's own image. 1: the source run's.",
) -> Chart:
    """One panel a map, dimensions (block, step); colours from 0 to the largest value, or on both
    sides of 0 where a map has values that are below 0 when written with two digits.

    Values are written into the cells where there is room. Raises InputError without a map, or
    with maps of other windows.
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
    with house_style():
        figure = chart(
            wide * len(maps) + 0.5,
            tall,
            title=title,
            note=note,
            selection=selection,
        )
        panels = figure.subplots(1, len(maps), sharey=True, squeeze=False)[0]
        for axes, (name, values) in zip(panels, maps.items(), strict=True):
            sns.heatmap(
                np.asarray(values, np.float64),
                ax=axes,
                cmap=agreement_colours() if below else heat_colours(),
                vmin=-highest if below else 0,
                vmax=highest,
                annot=shown[name] if columns <= 16 and rows <= 24 else False,
                fmt=".2f",
                annot_kws={"size": 7},
                linewidths=1,
                linecolor="white",
                cbar=axes is panels[-1],
                xticklabels=values["step"].values.tolist(),
                yticklabels=values["block"].values.tolist(),
            )
            axes.set(title=name, xlabel="Step", ylabel="Block" if axes is panels[0] else "")
            axes.tick_params(length=0)
            axes.tick_params(axis="y", rotation=0)
            axes.grid(False)
        bare_bar(panels[-1].collections[0].colorbar)
    return figure
