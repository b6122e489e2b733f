"""A report as one HTML file that needs nothing else: no script, no request, no other file."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.files.atomic import write_bytes
from recast_probe.files.input_files import read_bytes
from recast_probe.report.numbers import Number, explained, formatted, is_number

FONTS = Path(__file__).parents[1] / "figures" / "fonts"
LARGEST_FIGURE = 2**28  # bytes
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
# Saved figures know their size; so their texts come out equally large beside each other.
PIXELS_PER_INCH = 104


@dataclass(frozen=True)
class Section:
    """One part of a report.

    `text` is plain; an empty line starts a new paragraph. `figures` are image files (PNG, JPEG,
    WebP, GIF) or their bytes, `captions` their texts in the same order. `table` is a list of rows,
    each from column name to value.

    Examples:
        >>> Section("Entropy", table=[{"step": 0, "bits": 11.2}]).title
        'Entropy'
    """

    title: str
    text: str = ""
    figures: Sequence[Path | bytes] = ()
    table: Sequence[Mapping[str, Any]] = ()
    captions: Sequence[str] = ()


def write_report(
    path: str | Path,
    *,
    title: str,
    summary: Mapping[str, Number | float | int | str],
    sections: Sequence[Section],
    provenance: Mapping[str, Any],
    subtitle: str = "",
) -> Path:
    """Write a self-contained HTML report and return its path.

    `summary` becomes cards with a number and its explanation: a `Number` brings its own, and the
    names that diagnostics use in `.summary()` are explained already. `provenance` (anything JSON
    can hold) stands folded at the end. All text is escaped. The file is written atomically.
    Raises InputError for a figure that is missing or not an image.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     numbers, parts = {"top25": 0.7}, [Section("Skew", "Of one step.")]
        ...     page = write_report(f"{place}/a.html", title="Fox", summary=numbers, sections=parts,
        ...                         provenance={"seed": 0})
        ...     "Of one step." in page.read_text(encoding="utf-8")
        True
    """
    path = Path(path)
    page = render(title, subtitle, summary, sections, provenance)
    path.parent.mkdir(parents=True, exist_ok=True)
    # file names may hold bytes that are not text
    return write_bytes(path, page.encode("utf-8", "replace"))


def render(
    title: str,
    subtitle: str,
    summary: Mapping[str, Number | float | int | str],
    sections: Sequence[Section],
    provenance: Mapping[str, Any],
) -> str:
    """The report as text of an HTML document."""
    fonts = {"400": "Inter-Regular.ttf", "500 700": "Inter-SemiBold.ttf"}
    origin = json.dumps(provenance, indent=2, ensure_ascii=False, default=str)
    return PAGES.get_template("page.html.jinja").render(
        title=title,
        subtitle=subtitle,
        numbers=[explained(name, value) for name, value in summary.items()],
        sections=sections,
        provenance=origin if provenance else "",
        fonts={weight: _base64((FONTS / file).read_bytes()) for weight, file in fonts.items()},
        style=(HERE / "style.css").read_text(encoding="utf-8"),
    )


def _figures(section: Section) -> Iterator[dict[str, Any]]:
    """Each figure as the page embeds it."""
    for index, figure in enumerate(section.figures):
        caption = section.captions[index] if index < len(section.captions) else ""
        described = caption or f"{section.title}, figure {index + 1}"
        yield {**_image(figure), "caption": caption, "described": described}


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """The columns of a table, and whether each holds numbers only."""
    names = dict.fromkeys(column for row in rows for column in row)
    return {
        name: all(is_number(row[name]) for row in rows if row.get(name) is not None)
        for name in names
    }


def _image(figure: Path | bytes) -> dict[str, Any]:
    if isinstance(figure, bytes):
        content, name = figure, "A figure given as bytes"
    else:
        name = str(figure)
        content = read_bytes(figure, "The figure", LARGEST_FIGURE)
    try:
        with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
            kind, (width, height) = image.get_format_mimetype(), image.size
            density = float(image.info.get("dpi", (0, 0))[0])
    # what is damaged makes a decoder raise nearly anything
    except Exception as error:
        raise InputError(
            f"{name} is not a PNG, JPEG, WebP or GIF image; give the PNG of a saved figure."
        ) from error
    if density >= 150:
        scale = PIXELS_PER_INCH / density
        width, height = round(width * scale), round(height * scale)
    return {"kind": kind, "data": _base64(content), "width": width, "height": height}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


HERE = Path(__file__).parent
PAGES = Environment(
    loader=FileSystemLoader(HERE),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
PAGES.filters |= {"formatted": formatted, "figures": _figures, "columns": _columns}
