"""A report as one HTML file that needs nothing else: no script, no request, no other file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from recast_probe.files.atomic import write_bytes
from recast_probe.report.links import relative
from recast_probe.report.numbers import Number, explained, formatted, is_number, reads_as_number
from recast_probe.report.pictures import Picture, embedded

FONTS = Path(__file__).parents[1] / "figures" / "fonts"


@dataclass(frozen=True)
class Verdict:
    """What a report says first: the answer in words, and the numbers that it rests on.

    Examples:
        >>> Verdict("Undecided with 4 subjects", "Difference 0.17 [-0.04, 0.39].").answer
        'Undecided with 4 subjects'
    """

    answer: str
    evidence: str = ""


@dataclass(frozen=True)
class Section:
    """One part of a report.

    `text` is plain; an empty line starts a new paragraph. `table` is a list of rows, each from
    column name to value; the first column names the row.

    Examples:
        >>> Section("Entropy", table=[{"step": 0, "bits": 11.2}]).title
        'Entropy'
    """

    title: str
    text: str = ""
    figures: Sequence[Picture] = ()
    table: Sequence[Mapping[str, Any]] = ()


def write_report(
    path: str | Path,
    *,
    title: str,
    summary: Mapping[str, Number | float | int | str],
    sections: Sequence[Section],
    provenance: Mapping[str, Any],
    subtitle: str = "",
    verdict: Verdict | None = None,
    terms: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write a self-contained HTML report and return its path.

    `summary` becomes cards with a number and its explanation: a `Number` brings its own, and the
    names that diagnostics use in `.summary()` are explained already. `verdict` stands before them.
    `terms` explains words at the end, `files` links raw numbers in the report's folder (from label
    to relative path), and `provenance` (anything JSON can hold) stands folded below. All text is
    escaped. The file is written atomically. Raises InputError for a figure that is missing or not
    an image, and for a link that leads out of the folder.

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
    page = render(title, subtitle, summary, sections, provenance, verdict, terms, files)
    path.parent.mkdir(parents=True, exist_ok=True)
    # file names may hold bytes that are not text
    return write_bytes(path, page.encode("utf-8", "replace"))


def render(
    title: str,
    subtitle: str,
    summary: Mapping[str, Number | float | int | str],
    sections: Sequence[Section],
    provenance: Mapping[str, Any],
    verdict: Verdict | None = None,
    terms: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
) -> str:
    """The report as text of an HTML document."""
    origin = json.dumps(provenance, indent=2, ensure_ascii=False, default=str)
    return PAGES.get_template("page.html.jinja").render(
        title=title,
        subtitle=subtitle,
        verdict=verdict,
        numbers=[explained(name, value) for name, value in summary.items()],
        sections=sections,
        terms=terms or {},
        files={label: relative(place) for label, place in (files or {}).items()},
        provenance=origin if provenance else "",
        fonts=_fonts(),
        style=(HERE / "style.css").read_text(encoding="utf-8"),
    )


def _figures(section: Section) -> Iterator[dict[str, Any]]:
    """Each figure as the page embeds it."""
    return map(embedded, section.figures)


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """The columns of a table, and whether each holds numbers only, or numbers with intervals."""
    names = dict.fromkeys(column for row in rows for column in row)
    given = {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
    return {
        name: all(is_number(value) or reads_as_number(value) for value in values)
        for name, values in given.items()
    }


@lru_cache(maxsize=1)
def _fonts() -> dict[str, str]:
    """The two fonts in base64, by weight."""
    files = {"400": "Inter-Regular.ttf", "500 700": "Inter-SemiBold.ttf"}
    return {
        weight: base64.b64encode((FONTS / file).read_bytes()).decode("ascii")
        for weight, file in files.items()
    }


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
