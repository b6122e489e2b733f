"""What a command leaves behind: files that replace no others, and text or JSON on the screen."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recast_probe.errors import InputError
from recast_probe.files.input_files import is_file
from recast_probe.files.stray import sweep

_AS_JSON = False


def print_json(chosen: bool) -> None:
    """Whether results are printed as JSON: `recast-probe --json`."""
    global _AS_JSON
    _AS_JSON = chosen


def prints_json() -> bool:
    """Whether standard output is to hold one JSON object and nothing else."""
    return _AS_JSON


def check_output(folder: Path, names: Iterable[str], overwrite: bool) -> None:
    """Check, before anything is computed, that results can be written and replace none.

    Raises:
        InputError: the folder is a file or cannot be written to; one of the results is there
            already and is not to be overwritten.
    """
    there = next((each for each in (folder, *folder.parents) if os.path.lexists(each)), None)
    if is_file(folder) or (there is not None and not there.is_dir()):
        raise InputError(f"--out {str(folder)[:300]}: {there} is a file; give a folder.")
    if there is not None and not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"--out {str(folder)[:300]} cannot be written to: {there} is read-only.")
    if not overwrite:
        for name in names:
            refuse_replacing(folder / name)


def refuse_replacing(path: Path) -> None:
    """Raises InputError where there is something already."""
    if os.path.lexists(path):
        raise InputError(
            f"{path} is there already; choose another --out, or replace it with --overwrite."
        )


def output_folder(out: Path) -> Path:
    """The folder for results, made if it is not there; what killed processes left is removed.

    Raises:
        InputError: it is a file, cannot be made, or nothing can be written in it.
    """
    if is_file(out):
        raise InputError(f"--out {out} is a file; give a folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--out {str(out)[:300]} cannot be written to: {reason}.") from error
    sweep(out)
    return out


def emit(values: Mapping[Any, Any], said: Iterable[str]) -> None:
    """Print the results: with --json these values as one object, else these lines."""
    if _AS_JSON:
        print(json.dumps(values, ensure_ascii=False, allow_nan=False, default=str))
        return
    for line in said:
        print(line)


def note(message: str) -> None:
    """Tell the user something without touching standard output."""
    print(message, file=sys.stderr)


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a table, a heading first; numbers stand on the right. Columns are the rows' keys.

    >>> table([{"method": "full", "mean": 256.0}, {"method": "recast", "mean": 40.0}])
    ['method  mean', 'full     256', 'recast    40']
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = []
    for name in names:
        given = [row.get(name) for row in rows]
        cells = [name, *map(number, given)]
        width = max(map(len, cells))
        right = any(isinstance(value, int | float) for value in given)
        columns.append([cell.rjust(width) if right else cell.ljust(width) for cell in cells])
    return ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]


def number(value: Any) -> str:
    """A value for people: four digits are enough, and "-" is for what is not there."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def names_and_values(values: Mapping[str, Any]) -> list[str]:
    """A line a value, its name before it."""
    width = max(map(len, values), default=0)
    return [f"{name:{width}}  {number(value)}" for name, value in values.items()]
