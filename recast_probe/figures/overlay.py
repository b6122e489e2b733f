"""A map of reference tokens laid over the image it belongs to."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_rgb
from PIL import Image

from recast_probe.figures.style import GREY, bare, glow_colours


def draw_map(
    axes: Axes, values: np.ndarray, image: Image.Image | None, scale: Normalize, pixels: int = 480
) -> None:
    """Draw `values` (rows, columns) as flat cells; the image shows through as light and shade.

    Soft light keeps the colour of the scale where the image is of middle grey, so that colours
    can be read from the bar beside them; cells without a value are grey.
    Data coordinates are (column, row) of the grid.
    """
    rows, columns = values.shape
    colours = glow_colours()(scale(np.nan_to_num(values)))[..., :3]
    colours[np.isnan(values)] = to_rgb(GREY)
    if image is not None:
        factor = max(1, round(pixels / max(rows, columns)))
        colours = colours.repeat(factor, axis=0).repeat(factor, axis=1)
        grey = image.convert("L").resize(
            (columns * factor, rows * factor), Image.Resampling.BICUBIC
        )
        light = np.asarray(grey, dtype=float)[..., None] / 255
        light = np.clip(0.5 + 0.85 * (light - light.mean()), 0.05, 0.95)
        colours = 2 * light * colours + (1 - 2 * light) * colours**2
    axes.imshow(np.clip(colours, 0, 1), extent=(0, columns, rows, 0))
    bare(axes)


def draw_image(axes: Axes, image: Image.Image) -> None:
    """Draw an image smoothly, whatever its size."""
    axes.imshow(image.convert("RGB"), interpolation="lanczos")
    bare(axes)
