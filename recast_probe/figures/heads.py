"""One number for every head: what it does, or how it reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recast_probe.figures import style


@style.house_style()
def plot_heads(
    values: xr.DataArray,
    *,
    label: str,
    title: str,
    selection: str,
    note: str = "",
    marks: Sequence[tuple[int, int]] = (),
    highest: float | None = None,
    axes: style.PanelAxes = None,
) -> Figure:
    """Heat map of values (block, head); values below 0 make it diverge around 0.

    Args:
        marks: (block, head) to dot.
        highest: end of the scale; by default the largest value.

    Examples:
        >>> values = xr.DataArray(np.eye(2), {"block": [0, 1], "head": [0, 1]}, ("block", "head"))
        >>> figure = plot_heads(values, label="Bits", title="Information", selection="step 0")
        >>> figure.axes[0].get_xlabel()
        'Block'
    """
    table = values.transpose("head", "block")
    heads, blocks = table.shape
    below = float(table.min()) < 0
    end = float(np.abs(table).max()) if highest is None else highest
    (panel,) = style.panels(
        axes,
        1,
        float(np.clip(0.5 * blocks + 1.6, 4.6, 10)),
        float(np.clip(0.34 * heads + 0.7, 1.9, 6)),
        title=title,
        note=note,
        selection=selection,
    )
    sns.heatmap(
        np.asarray(table, float),
        ax=panel,
        cmap=style.agreement_colours() if below else style.heat_colours(),
        vmin=-end if below else 0,
        vmax=end or 1,
        linewidths=1 if blocks * heads <= 200 else 0,
        linecolor="white",
        xticklabels=False,
        yticklabels=False,
        cbar_kws={"label": label, "aspect": 18, "pad": 0.03},
    )
    style.bare_bar(panel.collections[0].colorbar)
    for name, place, size in (
        ("block", panel.set_xticks, blocks),
        ("head", panel.set_yticks, heads),
    ):
        every = max(1, round(size / 16))
        place(np.arange(0, size, every) + 0.5, table[name].values[::every], rotation=0)
    _mark(panel, table, marks)
    panel.tick_params(length=0)
    panel.set(xlabel="Block", ylabel="Head")
    panel.grid(False)
    return style.figure_of(panel)


def _mark(axes: Axes, table: xr.DataArray, marks: Sequence[tuple[int, int]]) -> None:
    blocks, heads = table["block"].values.tolist(), table["head"].values.tolist()
    places = [(blocks.index(block) + 0.5, heads.index(head) + 0.5) for block, head in marks]
    if places:
        x, y = zip(*places, strict=True)
        axes.plot(x, y, "o", color=style.MARK, markeredgecolor=style.MARK_EDGE, markersize=6)
