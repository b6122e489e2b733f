"""Two ways from the reference to the image: read directly, or through the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.figures import style
from recast_probe.figures.arguments import figure_function
from recast_probe.figures.overlay import draw_image, draw_map

if TYPE_CHECKING:
    from recast_probe.diagnostics import Flow

COLOURS = {"text": style.ORANGE, "generation": style.GREY, "reference": style.BLUE}


@figure_function
def plot_flow(
    result: Flow, image: Image.Image | None = None, *, axes: style.PanelAxes = None
) -> Figure:
    """Who attends to whom in every block, and what of the reference each path brings.

    Four panels, five with an image.

    Args:
        image: the reference, shown through the maps.

    Raises:
        InputError: several reference images, or tokens without places.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> generation = planted(np.arange(32.0).reshape(1, 2, 1, 16) / 500)
        >>> text = rp.AttentionProfile(generation.dataset.assign_attrs(queries="text"))
        >>> len(plot_flow(rp.flow(generation, text)).axes)
        4
    """
    if len(result.references) != 1 or not result.references[0].placed:
        raise InputError(
            "This figure is a map of one reference image, and the flow is of "
            f"{', '.join(map(str, result.references))}."
        )
    (grid,) = result.references
    pictures = 2 if image is None else 3
    if axes is None:
        figure = style.chart(
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
        above, below = figure.subfigures(2, 1, squeeze=False).ravel()
        bars = list(above.subplots(1, 2, sharey=True))
        maps = list(below.subplots(1, pictures))
    else:
        given = style.given_axes(axes, 2 + pictures)
        bars, maps = given[:2], given[2:]
    for panel, query in zip(bars, ("generation", "text"), strict=True):
        _stack(panel, result, query)
    bars[0].set_ylabel("Share of attention")
    bars[1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    if image is not None:
        draw_image(maps[0], image)
        maps[0].set_title("Reference")
    paths = {"Read directly": result.direct, "Through the text": result.mediated}
    shares = []
    for values in paths.values():
        mean = values.mean("step").values
        shares.append((mean / mean.mean() if mean.any() else mean).reshape(grid.rows, -1))
    scale = Normalize(0, max(1.5, float(np.quantile(shares, 0.995))))
    for panel, name, share in zip(maps[-2:], paths, shares, strict=True):
        draw_map(panel, share, image, scale)
        panel.set_title(name)
    return style.figure_of(bars[0])


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
