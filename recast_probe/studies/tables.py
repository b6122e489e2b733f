"""Tables on disk with their provenance, and as Markdown text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from recast_probe.diagnostics.intervals import interval_text
from recast_probe.errors import DamagedFileError, InputError
from recast_probe.files.atomic import atomic_path, without_nan, write_json
from recast_probe.files.envelope import digests, file_digest, read_sealed, sealed


def save_table(table: pd.DataFrame, stem: str | Path, provenance: Mapping[str, Any]) -> list[Path]:
    """Write `stem.parquet`, `stem.csv` and `stem.json` (the provenance), each in one atomic step.

    The parquet file holds the provenance too, as metadata under "recast_probe". The JSON file holds
    the digests of the other two and of itself; `load_table` checks them.

    Returns:
        The three files.

    Raises:
        InputError: the folder does not exist.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     [each.name for each in save_table(pd.DataFrame({"a": [1]}), f"{place}/t", {})]
        ['t.parquet', 't.csv', 't.json']
    """
    import pyarrow
    from pyarrow import parquet

    stem = Path(stem)
    if not stem.parent.is_dir():
        raise InputError(f"The folder {str(stem.parent)!r} does not exist; make it first.")
    files = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".parquet", ".csv", ".json")]
    facts = without_nan(dict(provenance))
    arrow = pyarrow.Table.from_pandas(table)
    metadata = {b"recast_probe": json.dumps(facts, ensure_ascii=False).encode()}
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), **metadata})
    with atomic_path(files[0]) as temporary:
        parquet.write_table(arrow, temporary)
    with atomic_path(files[1]) as temporary:
        table.to_csv(temporary, index=table.index.name is not None)
    described = {"provenance": facts, "files": digests(files[:2], stem.parent)}
    write_json(files[2], sealed(described, "Table"))
    return files


def load_table(stem: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A table that `save_table` wrote, and its provenance; copies may have another name.

    Raises:
        DamagedFileError: one of the three files is missing or is not as it was written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     files = save_table(pd.DataFrame({"a": [1]}), f"{place}/t", {"seed": 0})
        ...     load_table(f"{place}/t")[1]
        {'seed': 0}
    """
    stem = Path(stem)
    described = read_sealed(stem.with_name(f"{stem.name}.json"), "Table")
    for name, wanted in described["files"].items():
        # the file that is read, not the one that bore this name when it was written
        path = stem.with_name(f"{stem.name}{Path(name).suffix}")
        if file_digest(path) != wanted:
            raise DamagedFileError(
                f"{path} is not as it was written with its table; run the script again."
            )
    return pd.read_parquet(stem.with_name(f"{stem.name}.parquet")), described["provenance"]


def with_interval(
    mean: float, low: float, high: float, count: float | None = None, digits: int = 3
) -> str:
    """A mean, its interval and its subjects, as `interval_text` puts every interval."""
    return interval_text(mean, low, high, None if count is None else int(count), digits)


def row_interval(row: Mapping[str, Any] | pd.Series, value: str = "mean") -> str:
    """The same of a row of `means`, of `compare` ("difference") or of `retention`."""
    return with_interval(row[value], row["low"], row["high"], row["subjects"])


def p_value(value: float) -> str:
    """A p-value as far as it can be trusted: "0.03", "0.002", "< 0.001", "-" for none."""
    if value != value:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.{3 if value < 0.01 else 2}f}"


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as an aligned Markdown table; numbers to the right. Bars in cells are escaped.

    Examples:
        >>> print(markdown([{"arm": "full", "score": 0.8}]))
        | arm  | score |
        | ---- | ----: |
        | full | 0.800 |
    """
    if not rows:
        return ""
    columns = list(rows[0])
    cells = [[_cell(row.get(name, "")) for name in columns] for row in rows]
    numeric = [all(isinstance(row.get(name), int | float) for row in rows) for name in columns]
    widths = [
        max(3, len(name), *(len(line[i]) for line in cells)) for i, name in enumerate(columns)
    ]

    def line(parts: list[str]) -> str:
        padded = [
            part.rjust(width) if right else part.ljust(width)
            for part, width, right in zip(parts, widths, numeric, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * (width - 1) + ":" if right else "-" * width
        for width, right in zip(widths, numeric, strict=True)
    ]
    return "\n".join([line(columns), line(rule), *map(line, cells)])


def _cell(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
