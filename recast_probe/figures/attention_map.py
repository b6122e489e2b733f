"""Where one token looks in the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.figures import style
from recast_probe.figures.arguments import figure_function
from recast_probe.figures.overlay import draw_map
from recast_probe.profiles.profile import on_grids

if TYPE_CHECKING:
    from recast_probe.profiles.maps import AttentionMaps


@figure_function
def plot_attention_map(
    maps: AttentionMaps,
    image: Image.Image | None = None,
    *,
    query: int | None = None,
    reference: int = 0,
    axes: style.PanelAxes = None,
) -> Figure:
    """The attention of one query, mean over all that the maps hold, over the reference.

    Colours are per cent of the query's whole attention. Take a part with ``maps.sel``.

    Args:
        image: the reference as the model saw it.
        query: index of the token within its group; None for the mean of all queries.
        reference: which of several reference images.

    Raises:
        InputError: a query that was not recorded, an unknown reference, or tokens without places.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe = rp.Probe(tiny.build_tiny_pipeline())
        >>> maps = probe.attention_maps(tiny.tiny_image(), "a cat", steps=2, progress=False)
        >>> plot_attention_map(maps).axes[0].get_title(loc="left")
        'Mean of 16 generation tokens'
    """
    layout = maps.layout
    if not layout.placed:
        raise InputError("These reference tokens have no places in the image; there is no map.")
    if not 0 <= reference < len(layout.references):
        raise InputError(f"reference is {reference}; there are {len(layout.references)}.")
    mean = (maps if query is None else maps.sel(query=query)).mean()
    values = 100 * on_grids(mean.mean("query"), layout.references)[reference]
    if np.isnan(values).all():
        raise InputError(
            "No reference token was present in all of the recorded steps; take steps before tokens "
            "were removed, maps.sel(step=...)."
        )
    grid = layout.references[reference]
    (panel,) = style.panels(
        axes,
        1,
        4.8,
        4.2 * grid.rows / grid.columns,
        title="Where the generation looks in the reference",
        selection=maps.selection,
    )
    scale = Normalize(0, max(float(np.nanmax(values)), 1e-9))
    draw_map(panel, values, image, scale)
    if query is None:
        panel.set_title(f"Mean of {mean.sizes['query']} {maps.queries} tokens")
    else:
        row, column = (int(mean[name][0]) for name in ("query_row", "query_column"))
        place = f" (row {row}, column {column})" if row >= 0 else ""
        panel.set_title(f"{maps.queries.capitalize()} token {query}{place}")
    colours = ScalarMappable(scale, style.glow_colours())
    figure = style.figure_of(panel)
    style.bare_bar(figure.colorbar(colours, ax=panel, label="% of attention", aspect=24, pad=0.02))
    return figure
