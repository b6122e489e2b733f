"""What each cut block or head does to the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from recast_probe.errors import InputError
from recast_probe.figures.heads import plot_heads
from recast_probe.figures.style import INK, PanelAxes, figure_of, house_style, panels

if TYPE_CHECKING:
    from recast_probe.experiments.attribution_result import Attribution


@house_style()
def plot_attribution(
    result: Attribution, value: str = "distance", *, axes: PanelAxes = None
) -> Figure:
    """Effect of every cut head as a heat map, or of every cut block as points with intervals.

    Args:
        value: "distance" of the latents, or "effect" on the metric.

    Raises:
        InputError: another value, or one that was not measured.

    Examples:
        >>> from recast_probe.experiments.attribution_result import Attribution
        >>> import xarray as xr
        >>> data = xr.Dataset(
        ...     {"distance": (("block", "head"), np.eye(2))}, {"block": [0, 1], "head": [0, 1]}
        ... )
        >>> edge = ("reference", "generation")
        >>> found = Attribution(data, "head", "", edge, None, float("nan"), "cut alone")
        >>> plot_attribution(found).axes[0].get_xlabel()
        'Block'
    """
    if value not in ("distance", "effect") or bool(np.isnan(result.data[value]).all()):
        raise InputError(f"There is no {value!r} in this attribution; choose distance or effect.")
    label = {
        "distance": "Distance of latents from the full run",
        "effect": f"Loss of {result.metric}",
    }[value]
    title = f"What each {result.over} does to the image"
    note = f"{label} when {result.edge[0]} to {result.edge[1]} is cut in this {result.over} alone."
    if result.sampled is not None:
        note = f"{label}: runs with this {result.over} cut minus runs without, in random company."
    values = result.data[value]
    if "head" in values.dims:
        return plot_heads(
            values, label=label, title=title, note=note, selection=result.selection, axes=axes
        )
    low, high = (result.data[f"{value}_{end}"].values for end in ("low", "high"))
    (panel,) = panels(
        axes,
        1,
        max(4.6, 0.34 * values.size + 1.4),
        3.2,
        title=title,
        note=note,
        selection=result.selection,
    )
    blocks = values["block"].values
    panel.axhline(0, color=INK, linewidth=0.8, linestyle=":")
    panel.vlines(blocks, low, high, color=INK, linewidth=2.4)
    panel.plot(blocks, values, "o", color=INK)
    panel.set(xlabel="Block", ylabel=label)
    return figure_of(panel)
