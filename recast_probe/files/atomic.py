"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recast_probe.files.stray import sweep, temporary_prefix

# folders that this process has looked through for what killed processes left
_SWEPT: set[Path] = set()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well.

    After any failure (a full disk, Ctrl-C) the temporary file is gone and an earlier file at
    `path` is as it was. What a killed process leaves is removed by a later one that writes into
    the same folder; see `stray.sweep`. The folder must exist.
    """
    target = Path(path)
    _sweep_once(target.parent)
    handle, name = tempfile.mkstemp(
        dir=target.parent, prefix=temporary_prefix(target), suffix=target.suffix
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        # mkstemp makes private files; results are as readable as any other file of the user
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path`, renamed to it when the block ends well.

    A folder cannot be replaced in one step: for a moment an earlier one lies at `previous(path)`
    and none at `path`. Folders above are made.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(target.parent)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=temporary_prefix(target)))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        temporary.chmod(0o777 & ~_umask())
        old = previous(target)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(target, old)
        os.replace(temporary, target)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def previous(path: Path) -> Path:
    """Where `atomic_folder` keeps an earlier folder until the new one is in its place."""
    return path.with_name(f"{path.name}.old")


def _sweep_once(folder: Path) -> None:
    if folder not in _SWEPT:
        _SWEPT.add(folder)
        sweep(folder)


def _flush(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def write_bytes(path: str | Path, data: bytes | memoryview) -> Path:
    """Write bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_bytes(path, text.encode())


def without_nan(values: Any) -> Any:
    """The same mappings and lists with None for NaN, as strict JSON needs."""
    if isinstance(values, Mapping):
        return {name: without_nan(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [without_nan(value) for value in values]
    return None if isinstance(values, float) and values != values else values


def write_json(path: str | Path, values: Any) -> Path:
    """Write strict JSON (no NaN) atomically, indented, one trailing newline.

    Raises:
        ValueError: NaN or infinity somewhere in `values`.
    """
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")
