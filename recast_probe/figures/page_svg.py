"""A figure as a page shows it: SVG that follows light and dark, and its words beside it.

Words in a figure shrink with it, and a phone shows it at a third. So title, note and selection are
left to the page, and the drawing alone becomes the SVG. Colours of the frame are variables that a
dark scheme changes; colours that mean something stay.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.transforms import Bbox
from PIL import Image

from recast_probe.figures import style
from recast_probe.figures.saving import DOTS_PER_INCH

# name, in the light, in the dark; those of the report's style sheet
SCHEME = (
    ("ink", style.INK, "#e7eaef"),
    ("secondary", style.SECONDARY, "#a2abb8"),
    ("line", style.HAIRLINE, "#4a5362"),
    ("grid", style.GRID, "#262c36"),
    ("page", "#ffffff", "#14171d"),
)
PHOTOGRAPH = 12_000  # bytes without loss, above which a picture may lose what nobody sees
QUALITY = 90
PNG = re.compile(r'(<image\b[^>]*?href="data:)image/png;base64,([^"]+)"', re.DOTALL)
HEAD = re.compile(r"^.*?(?=<svg\b)", re.DOTALL)  # the XML declaration and the document type
FLAT = "image-rendering:crisp-edges;image-rendering:pixelated"


@dataclass(frozen=True)
class PageFigure:
    """The drawing, and the words that a `Chart` has around it.

    Attributes:
        svg: the file, in UTF-8.
        title, note, selection: empty for a figure that is no `Chart`.
    """

    svg: bytes
    title: str = ""
    note: str = ""
    selection: str = ""


def page_figure(figure: Figure) -> PageFigure:
    """The figure's drawing as SVG, and its words apart; the same bytes for the same figure.

    Pictures in it keep their own pixels: without loss where they are small, as WebP of quality 90
    otherwise.

    Examples:
        >>> import numpy as np
        >>> from recast_probe.testing.planted_profiles import planted
        >>> found = page_figure(rp.skew(planted(np.arange(16.0))).plot())
        >>> found.title, found.svg[:5]
        ('How much attention the top tokens hold', b'<svg ')
    """
    words = figure.words if isinstance(figure, style.Chart) else {}
    buffer = io.StringIO()
    with style.house_style(), _drawing_alone(figure) as inside, _own_pixels(figure):
        figure.savefig(
            buffer,
            format="svg",
            dpi=DOTS_PER_INCH,
            bbox_inches=inside,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return PageFigure(_following_scheme(buffer.getvalue()).encode(), **words)


@contextmanager
def _drawing_alone(figure: Figure) -> Iterator[Bbox | None]:
    """Inside, a chart's words are not drawn; gives the place of the rest in inches."""
    if not isinstance(figure, style.Chart):
        yield None
        return
    left, top, width, height = figure.inside
    bottom = figure.get_figheight() - top - height
    shown = [text for text in figure.texts if text.get_visible()]
    for text in shown:
        text.set_visible(False)
    try:
        yield Bbox.from_bounds(left - 0.06, bottom - 0.06, width + 0.12, height + 0.12)
    finally:
        for text in shown:
            text.set_visible(True)


@contextmanager
def _own_pixels(figure: Figure) -> Iterator[None]:
    """Inside, images are stored with the pixels that they have."""
    kept = [
        (image, image.get_interpolation())
        for axes in figure.axes
        for image in axes.get_images()
        if isinstance(image, AxesImage)
    ]
    for image, _ in kept:
        image.set_interpolation("none")
    try:
        yield
    finally:
        for image, interpolation in kept:
            image.set_interpolation(interpolation)


def _following_scheme(text: str) -> str:
    """Variables for the colours of the frame, and pictures in fewer bytes."""
    for name, light, _ in SCHEME[:-1]:
        text = text.replace(light, f"var(--{name})")
    # white letters stand on dark cells and stay
    text = re.sub(
        r"<(?:path|use)\b[^>]*>", lambda tag: tag[0].replace("#ffffff", "var(--page)"), text
    )
    text = re.sub(
        r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]).replace("\n", ""), text
    )
    text = PNG.sub(lambda found: f'{found[1]}{_smaller(found[2])}"', text).replace(FLAT, "")
    light, dark = ("".join(f"--{each[0]}:{each[place]};" for each in SCHEME) for place in (1, 2))
    rules = f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return HEAD.sub("", text).replace("<defs>", f"<style>{rules}</style><defs>", 1)


def _smaller(png: str) -> str:
    """The rest of a data URL: WebP without loss, or with a little where that is long."""
    with Image.open(io.BytesIO(base64.b64decode(png)), formats=["PNG"]) as image:
        content = _webp(image, lossless=True)
        if len(content) > PHOTOGRAPH:
            content = _webp(image, quality=QUALITY, method=6)
    return f"image/webp;base64,{base64.b64encode(content).decode('ascii')}"


def _webp(image: Image.Image, **options: bool | int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **options)
    return buffer.getvalue()
