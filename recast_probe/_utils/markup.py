"""What notebooks show of an object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

LEFT = ' style="text-align:left"'


def html_table(title: str, rows: Iterable[Sequence[Any]] = (), head: Sequence[str] = ()) -> str:
    """A title and a small table below it; all text is escaped.

    Args:
        title: such as the object's ``repr``.
        rows: each its name and one or several values; none for the title alone.
        head: names of the columns.

    >>> html_table("a < b")
    '<div><b>a &lt; b</b></div>'
    """
    lines = [f"<th>{'</th><th>'.join(map(_text, head))}</th>"] if head else []
    for name, *values in rows:
        cells = "".join(f"<td>{_text(value)}</td>" for value in values)
        lines.append(f"<th{LEFT}>{_text(name)}</th>{cells}")
    table = f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>" if lines else ""
    return f"<div><b>{_text(title)}</b>{table}</div>"


def _text(value: Any) -> str:
    return escape(str(value))
