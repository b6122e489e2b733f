"""Two ways from the reference to the image: read directly, or through the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.figures.overlay import draw_image, draw_map
from recast_probe.figures.style import BLUE, GREY, ORANGE, Chart, chart, house_style

if TYPE_CHECKING:
    from recast_probe.diagnostics import Flow
    from recast_probe.layout import Grid

COLOURS = {"text": ORANGE, "generation": GREY, "reference": BLUE}


def flow_paths(result: Flow, grid: Grid, image: Image.Image | None = None) -> Chart:
    """Who attends to whom in every block, and what of the reference each path brings.

    Args:
        grid: of the reference image, such as ``profile.layout.references[0]``; there must be one.
        image: the reference, shown through the maps.

    Raises:
        InputError: a grid that does not fit.
    """
    if grid.size != result.direct.sizes["token"] or not grid.placed:
        raise InputError(
            f"The flow is of {result.direct.sizes['token']} reference tokens, which are no map of "
            f"{grid}."
        )
    with house_style():
        figure = chart(
            9.6,
            5.2,
            title="From the reference to the image, directly and through the text",
            note=(
                f"Above: share of attention by group, mean over steps and heads. Below: reference "
                f"tokens as multiples of an equal share; the two orders agree with a Spearman "
                f"correlation of {result.spearman:.2f}, and {result.mediated_share:.0%} goes "
                "through the text."
            ),
            selection=result.selection,
        )
        above, below = figure.subfigures(2, 1, height_ratios=[1, 1], squeeze=False).ravel()
        bars = above.subplots(1, 2, sharey=True)
        for axes, query in zip(bars, ("generation", "text"), strict=True):
            _stack(axes, result, query)
        bars[0].set_ylabel("Share of attention")
        bars[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        maps = {"Read directly": result.direct, "Through the text": result.mediated}
        panels = below.subplots(1, 2 if image is None else 3)
        if image is not None:
            draw_image(panels[0], image)
            panels[0].set_title("Reference")
        shares = []
        for values in maps.values():
            mean = values.mean("step").values
            shares.append((mean / mean.mean() if mean.any() else mean).reshape(grid.rows, -1))
        scale = Normalize(0, max(1.5, float(np.quantile(shares, 0.995))))
        for axes, name, share in zip(panels[-2:], maps, shares, strict=True):
            draw_map(axes, share, image, scale)
            axes.set_title(name)
    return figure


def _stack(axes: Axes, result: Flow, query: str) -> None:
    mean = result.mass.sel(query_group=query).mean(("step", "head"))
    places, bottom = np.arange(mean.sizes["block"]), np.zeros(mean.sizes["block"])
    for group, colour in COLOURS.items():
        height = mean.sel(key_group=group).values
        axes.bar(places, height, 0.84, bottom=bottom, color=colour, label=f"to {group}")
        bottom = bottom + height
    every = max(1, round(len(places) / 12))
    axes.set_xticks(places[::every], mean["block"].values[::every])
    axes.set(xlabel="Block", ylim=(0, 1))
    axes.set_title(f"{query.capitalize()} tokens look")
