"""Pictures in what notebooks show of an object."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

SIDE = 192  # pixels


def html_picture(image: Image.Image, caption: str, side: int = SIDE) -> str:
    """An image with its caption below it, at most `side` pixels wide and high; text is escaped."""
    shown = image.convert("RGB")
    shown.thumbnail((2 * side, 2 * side))
    buffer = io.BytesIO()
    shown.save(buffer, format="PNG")
    return html_png(buffer.getvalue(), caption, side)


def html_png(content: bytes, caption: str, side: int) -> str:
    """The bytes of a PNG as an image with a caption."""
    data = base64.b64encode(content).decode("ascii")
    return (
        f'<figure style="display:inline-block;margin:0 0.6em 0.6em 0">'
        f'<img style="max-width:{side}px;max-height:{side}px" alt="{escape(caption)}" '
        f'src="data:image/png;base64,{data}">'
        f"<figcaption><small>{escape(caption)}</small></figcaption></figure>"
    )


def html_map(values: np.ndarray, caption: str, side: int = SIDE) -> str:
    """Values (rows, columns) as flat cells, dark for the least and light for the most.

    Cells without a value are grey.
    """
    from matplotlib import colormaps  # takes a while to import

    known = np.isfinite(values)
    top = float(values[known].max()) if known.any() else 1.0
    colours = colormaps["inferno"](np.where(known, values, 0) / (top or 1.0))[..., :3]
    colours[~known] = 0.55
    cells = Image.fromarray(np.round(255 * colours).astype(np.uint8))
    scale = max(1, side // max(values.shape))
    grown = cells.resize((cells.width * scale, cells.height * scale), Image.Resampling.NEAREST)
    return html_picture(grown, caption, side)


def together(*parts: str) -> str:
    """Pictures beside each other, then what stands below."""
    return f"<div>{''.join(parts)}</div>"


def maps_of(grids: Sequence[np.ndarray], what: str) -> str:
    """One map for each reference image."""
    count = len(grids)
    return "".join(
        html_map(np.asarray(grid), what if count == 1 else f"{what}, reference {place}")
        for place, grid in enumerate(grids)
    )
