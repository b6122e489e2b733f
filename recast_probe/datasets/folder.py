"""A user's own pictures: a folder, and a table in CSV or JSONL that says what to do with them."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

from recast_probe.datasets.case import FileCase, noise_seed
from recast_probe.datasets.choosing import chosen
from recast_probe.datasets.files import (
    existing_folder,
    inside,
    json_lines,
    listed,
    text_field,
    text_of,
)
from recast_probe.errors import InputError
from recast_probe.files.input_files import check_path, check_text, is_file
from recast_probe.masks import MaskFinder

COLUMNS = ("image", "prompt", "category", "mask", "seed", "subject", "target", "target_mask")
REQUIRED = COLUMNS[:2]
UNNAMED = "all"
"""The category of rows that name none."""
LAYOUT = "one table, *.csv or *.jsonl, with the columns image and prompt, and if you like \
category, mask, seed, subject, target and target_mask; files by paths relative to the table"


def folder(
    path: str | Path | None = None,
    *,
    subjects: int | None = None,
    prompts: int | None = None,
    seed: int = 0,
    masks: MaskFinder | None = None,
) -> list[FileCase]:
    """The cases of your own table of pictures and prompts.

    Each row is a case. Rows with one image, or with one subject where that column is there, are
    one subject in the statistics. An empty cell means that a row has none of it.

    Args:
        path: the table, or a folder that holds just one.
        subjects, prompts: how many, at most; None for all.
        seed: from which the noise seeds of rows without one are drawn.
        masks: finds the masks that the table does not name; see `recast_probe.masks`.

    Raises:
        InputError: no table or several, a column that is not known, a row without image or prompt,
            a path that leaves the folder, or a file that cannot be used.

    Examples:
        >>> import tempfile
        >>> from recast_probe.testing.tiny import tiny_image
        >>> with tempfile.TemporaryDirectory() as place:
        ...     tiny_image().save(Path(place, "fox.png"))
        ...     number = Path(place, "table.csv").write_text("image,prompt\\nfox.png,in snow")
        ...     [(case.subject, case.prompt, case.category) for case in folder(place)]
        [('fox.png', 'in snow', 'all')]
    """
    if path is None:
        raise InputError(f"A folder of your own needs its path (--data PATH). It holds {LAYOUT}.")
    table = _table(check_path(path, "Your own data").expanduser())
    rows = json_lines(table) if table.suffix.lower() == ".jsonl" else _csv_rows(table)
    cases = [_case(table.parent, where, row, seed, masks) for where, row in rows]
    return chosen(cases, subjects, prompts, str(table))


def _table(path: Path) -> Path:
    if is_file(path):
        if path.suffix.lower() not in (".csv", ".jsonl"):
            raise InputError(f"{str(path)!r} is neither *.csv nor *.jsonl.")
        return path
    existing_folder(path, "Your own data", LAYOUT)
    tables = [
        each for each in listed(path) if each.suffix.lower() in (".csv", ".jsonl") and is_file(each)
    ]
    if len(tables) != 1:
        names = ", ".join(each.name for each in tables)
        found = f"{len(tables)} of them ({names}); name the one" if tables else "none"
        raise InputError(f"{str(path)!r} should hold {LAYOUT}. There is {found}.")
    return tables[0]


def _csv_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text_of(path), newline=""), strict=True)
    rows = []
    try:
        names = list(reader.fieldnames or ())
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise InputError(f"{path.name} has the column {twice[0]!r} twice; keep the right one.")
        for row in reader:
            where = f"{path.name}, line {reader.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{where} has not as many cells as the first line.")
            rows.append((where, dict(row)))
    except csv.Error as error:
        raise InputError(f"{path.name}, line {reader.line_num} is not CSV ({error}).") from error
    return rows


def _case(
    folder: Path, where: str, row: dict[str, Any], seed: int, masks: MaskFinder | None
) -> FileCase:
    unknown = [name for name in row if name not in COLUMNS]
    if unknown:
        raise InputError(f"{where} has the column {unknown[0]!r}; known are {', '.join(COLUMNS)}.")
    given = {name: value for name, value in row.items() if value not in (None, "")}
    name, prompt = (text_field(given, [each], where) for each in REQUIRED)

    def file(column: str) -> Path | None:
        return inside(folder, given[column], where) if column in given else None

    if "target_mask" in given and "target" not in given:
        raise InputError(f"{where} has a target_mask, but no target.")
    subject = _label(given, "subject", name, where)
    return FileCase(
        subject=subject,
        prompt=prompt,
        category=_label(given, "category", UNNAMED, where),
        seed=_seed(given["seed"], where) if "seed" in given else noise_seed(seed, subject, prompt),
        reference_file=inside(folder, name, where),
        mask_file=file("mask"),
        target_file=file("target"),
        target_mask_file=file("target_mask"),
        finder=masks,
    )


def _label(given: dict[str, Any], column: str, otherwise: str, where: str) -> str:
    value = given.get(column, otherwise)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{where}: {column} is no text, but {value!r}.")
    return check_text(str(value), f"{where}, {column}")


def _seed(value: Any, where: str) -> int:
    # digits of other alphabets and "1_000" are numbers for Python
    plain = isinstance(value, int | str) and re.fullmatch("[0-9]{1,19}", str(value).strip())
    if isinstance(value, bool) or not plain or int(value) >= 2**63:
        raise InputError(
            f"{where}: the seed {str(value)[:60]!r} is no whole number from 0 to 2 ** 63 - 1."
        )
    return int(value)
