"""Pictures of a report, as the page embeds them."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from recast_probe.errors import InputError
from recast_probe.files.input_files import read_bytes
from recast_probe.report.links import relative

LARGEST_FIGURE = 2**28  # bytes
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
# Saved figures know their size; so their texts come out equally large beside each other.
PIXELS_PER_INCH = 104
SVG = re.compile(
    r'\s*(?:<\?xml[^>]*\?>\s*)?<svg\b[^>]*?\bviewBox="0 0 (?P<width>[\d.]+) (?P<height>[\d.]+)"'
)


@dataclass(frozen=True)
class Picture:
    """A figure of a report, with its words.

    Attributes:
        content: an image file (PNG, JPEG, WebP, GIF) or its bytes, or the bytes of an SVG. A
            browser shows an SVG as an image: it runs nothing that is in it and fetches nothing.
        alt: what it shows, with the numbers that matter, for who cannot see it.
        title: printed above it; empty where the section's heading says enough.
        caption: how to read it, printed below it.
        files: the same figure in files beside the report, from label to relative path.

    Examples:
        >>> Picture(b"", alt="ReCAST keeps 0.31 of identity, random tokens 0.14.").caption
        ''
    """

    content: Path | bytes
    alt: str
    title: str = ""
    caption: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def caption(*parts: str) -> str:
    """Sentences of the parts that are not empty.

    Examples:
        >>> caption("Of one step", "", "all heads.")
        'Of one step. All heads.'
    """
    return " ".join(f"{part[:1].upper()}{part[1:].rstrip('.')}." for part in parts if part)


def embedded(picture: Picture) -> dict[str, Any]:
    """A picture as the page's template takes it: address, size in CSS pixels, and words.

    Raises:
        InputError: what is no image, or a link that leads elsewhere.
    """
    content, name = picture.content, "A figure given as bytes"
    if isinstance(content, Path):
        name = str(content)
        content = read_bytes(content, "The figure", LARGEST_FIGURE)
    drawing = _drawing(content) if b"<svg" in content[:200] else None
    address, width, height = drawing or _photograph(content, name)
    return {
        "address": address,
        "width": round(width),
        "height": round(height),
        "alt": picture.alt,
        "title": picture.title,
        "caption": picture.caption,
        "files": {label: relative(path) for label, path in picture.files.items()},
    }


def _drawing(content: bytes) -> tuple[str, float, float] | None:
    """An SVG of matplotlib, whose unit is the point; None for other text."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    found = SVG.match(text)
    if found is None:
        return None
    scale = PIXELS_PER_INCH / 72
    # most of it is letters that may stand as they are, which base64 would make a third longer
    address = f"data:image/svg+xml,{quote(text, safe=' ;:/=,.()-+!*@&$?~')}"
    return address, float(found["width"]) * scale, float(found["height"]) * scale


def _photograph(content: bytes, name: str) -> tuple[str, float, float]:
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            kind, (width, height) = image.get_format_mimetype(), image.size
            density = float(image.info.get("dpi", (0, 0))[0])
    # what is damaged makes a decoder raise nearly anything
    except Exception as error:
        raise InputError(
            f"{name} is not a PNG, JPEG, WebP or GIF image, nor the SVG of a figure; give the PNG "
            "of a saved figure."
        ) from error
    scale = PIXELS_PER_INCH / density if density >= 150 else 1.0
    data = base64.b64encode(content).decode("ascii")
    return f"data:{kind};base64,{data}", width * scale, height * scale
