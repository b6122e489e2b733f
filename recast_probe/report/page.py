"""A report as one HTML file that needs nothing else: no script, no request, no other file."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from recast_probe.errors import InputError
from recast_probe.files.atomic import write_bytes
from recast_probe.files.input_files import read_bytes
from recast_probe.report.numbers import Number, explained, formatted, is_number

STYLE = Path(__file__).with_name("style.css")
# Even if something slipped through the escaping, a browser would neither run nor fetch it.
POLICY = "default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'"
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
    can hold) stands folded at the end. All text is escaped. The file appears whole or not at all.
    Raises InputError for a figure that is missing or no image.
    """
    path = Path(path)
    page = render(title, subtitle, summary, sections, provenance)
    path.parent.mkdir(parents=True, exist_ok=True)
    # file names may hold bytes that are no text
    return write_bytes(path, page.encode("utf-8", "replace"))


def render(
    title: str,
    subtitle: str,
    summary: Mapping[str, Number | float | int | str],
    sections: Sequence[Section],
    provenance: Mapping[str, Any],
) -> str:
    """The report as text of an HTML document."""
    head = [f"<h1>{escape(title)}</h1>"]
    if subtitle:
        head.append(f'<p class="subtitle">{escape(subtitle)}</p>')
    if len(sections) > 2:
        links = (
            f'<li><a href="#section-{place}">{escape(section.title)}</a></li>'
            for place, section in enumerate(sections, 1)
        )
        head.append(f'<nav aria-label="Sections"><ol>{"".join(links)}</ol></nav>')
    cards = "".join(_card(explained(name, value)) for name, value in summary.items())
    body = [f"<header>{''.join(head)}</header>"]
    if cards:
        body.append(f'<dl class="numbers">{cards}</dl>')
    body += [_section(section, place) for place, section in enumerate(sections, 1)]
    if provenance:
        origin = json.dumps(provenance, indent=2, ensure_ascii=False, default=str)
        body.append(
            "<details><summary>Provenance: how these numbers were made</summary>"
            f"<pre>{escape(origin)}</pre></details>"
        )
    style = STYLE.read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_fonts()}{style}</style>\n"
        f"</head>\n<body>\n<main>\n{chr(10).join(body)}\n</main>\n</body>\n</html>\n"
    )


def _card(number: Number) -> str:
    unit = f' <span class="unit">{escape(number.unit)}</span>' if number.unit else ""
    text = (
        f'<dd class="explanation">{escape(number.explanation)}</dd>' if number.explanation else ""
    )
    return (
        f'<div class="number"><dt>{escape(number.label)}</dt>'
        f'<dd class="value">{escape(formatted(number.value))}{unit}</dd>{text}</div>'
    )


def _section(section: Section, place: int) -> str:
    parts = [f'<section id="section-{place}"><h2>{escape(section.title)}</h2>']
    for paragraph in section.text.split("\n\n"):
        if paragraph.strip():
            parts.append(f"<p>{escape(paragraph.strip())}</p>")
    for index, figure in enumerate(section.figures):
        caption = section.captions[index] if index < len(section.captions) else ""
        described = caption or f"{section.title}, figure {index + 1}"
        below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
        parts.append(f"<figure>{_image(figure, described)}{below}</figure>")
    if section.table:
        parts.append(_table(section.table))
    parts.append("</section>")
    return "\n".join(parts)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    numeric = {
        column: all(is_number(row[column]) for row in rows if row.get(column) is not None)
        for column in columns
    }

    def cell(kind: str, column: str, text: str) -> str:
        mark = ' class="numeric"' if numeric[column] else ""
        return f"<{kind}{mark}>{escape(text)}</{kind}>"

    head = "".join(cell("th", column, str(column)) for column in columns)
    lines = (
        "".join(
            cell("td", column, formatted(row[column]) if column in row else "")
            for column in columns
        )
        for row in rows
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return (
        f'<div class="table"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _image(figure: Path | bytes, described: str) -> str:
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
            f"{name} is no PNG, JPEG, WebP or GIF image; give the PNG of a saved figure."
        ) from error
    if density >= 150:
        scale = PIXELS_PER_INCH / density
        width, height = round(width * scale), round(height * scale)
    data = base64.b64encode(content).decode("ascii")
    return (
        f'<img src="data:{kind};base64,{data}" width="{width}" height="{height}" '
        f'alt="{escape(described)}">'
    )


def _fonts() -> str:
    faces = []
    for file, weight in (("Inter-Regular.ttf", "400"), ("Inter-SemiBold.ttf", "500 700")):
        data = base64.b64encode((FONTS / file).read_bytes()).decode("ascii")
        faces.append(
            f"@font-face {{ font-family: Inter; font-weight: {weight}; "
            f'src: url("data:font/ttf;base64,{data}") format("truetype"); }}\n'
        )
    return "".join(faces)
