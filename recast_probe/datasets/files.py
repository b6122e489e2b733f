"""Finding files of a benchmark: inside its folder and nowhere else, on disk, zipped, or the hub."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from recast_probe.errors import InputError

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
LARGEST_ARCHIVE = 4 * 2**30
"""Bytes that an archive may unpack to; the published ones are below a hundredth of it."""


def inside(folder: Path, name: Any, where: str) -> Path:
    """The file `name` of a folder, if that is a relative path that stays inside.

    Args:
        where: what named it, for the message, such as "data.csv, line 3".

    Raises:
        InputError: not a text, empty, absolute, or with a ".." or a drive in it.
    """
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{where}: {name!r} is no path of a file.")
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    escapes = posix.is_absolute() or windows.anchor or "\0" in name
    if escapes or ".." in posix.parts or ".." in windows.parts:
        raise InputError(
            f"{where}: {name!r} leaves the folder; paths must be relative to {str(folder)!r} and "
            "stay inside it."
        )
    return folder.joinpath(*posix.parts)


def existing_folder(path: str | Path, what: str, layout: str) -> Path:
    """A folder that is there.

    Raises:
        InputError: it is not; the message says what it should hold.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise InputError(f"{what}: there is no folder {str(path)!r}. It should hold {layout}.")
    return folder


def text_of(path: Path) -> str:
    """A text file in UTF-8, with or without byte order mark.

    Raises:
        InputError: it cannot be read, or is in another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is not in UTF-8 ({error}); save it again.") from error


def json_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Every object of a JSONL file, with where it stands; empty lines are passed over.

    Raises:
        InputError: a line that is no JSON object.
    """
    rows = []
    for number, line in enumerate(text_of(path).split("\n"), 1):
        where = f"{path.name}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{where} is no JSON ({error}).") from error
        if not isinstance(row, dict):
            raise InputError(f"{where} is no JSON object, but {type(row).__name__}.")
        rows.append((where, row))
    return rows


def text_field(row: dict[str, Any], names: Iterable[str], where: str) -> str:
    """The first of the named columns that holds text, without space around it.

    Raises:
        InputError: none does.
    """
    names = tuple(names)
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    raise InputError(f"{where} has no text in {' or '.join(names)}; it has {', '.join(row)}.")


def from_hub(repository: str, what: str, layout: str) -> Path:
    """A dataset of the hub: from the cache where it lies complete, else downloaded.

    Raises:
        InputError: it is neither in the cache nor to be had; says how to get it.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, repo_type="dataset"))
    except Exception as error:  # the hub client raises a different class for every cause
        raise InputError(
            f"{what} is not on this machine and could not be downloaded from the dataset "
            f"{repository!r} of the Hugging Face hub ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}). Get it while online "
            f"with `hf download {repository} --repo-type dataset --local-dir FOLDER` and name the "
            f"folder (--data FOLDER, or the loader's first argument). It holds {layout}."
        ) from error


def unpacked(archive: Path, keep: Iterable[str]) -> Path:
    """An archive's files in a folder of the user's cache, unpacked there once.

    Args:
        keep: suffixes of the files that are unpacked; others and links are left out.

    Raises:
        InputError: no zip archive, damaged, larger than `LARGEST_ARCHIVE`, or with a file that
            would land outside of the folder.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recast_probe"
    try:
        with archive.open("rb") as stream:
            name = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    except OSError as error:
        raise InputError(f"{str(archive)!r} cannot be read: {error.strerror or error}.") from error
    target = root / f"{archive.stem}-{name}"
    if target.is_dir():
        return target
    root.mkdir(parents=True, exist_ok=True)
    # it appears whole or not at all: another run may be waiting for it
    partial = Path(tempfile.mkdtemp(dir=root, prefix=f".{archive.stem}-"))
    try:
        _unpack(archive, partial, tuple(keep))
        os.replace(partial, target)
    except OSError:
        if not target.is_dir():  # or somebody else was faster
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _unpack(archive: Path, folder: Path, keep: tuple[str, ...]) -> None:
    try:
        with zipfile.ZipFile(archive) as packed:
            members = [
                each
                for each in packed.infolist()
                if not each.is_dir()
                and each.filename.lower().endswith(keep)
                and not each.filename.startswith("__MACOSX/")
                # a link's target is its content
                and (each.external_attr >> 16) & 0o170000 != 0o120000
            ]
            if sum(each.file_size for each in members) > LARGEST_ARCHIVE:
                raise InputError(f"{str(archive)!r} would unpack to more than 4 GiB.")
            for each in members:
                path = inside(folder, each.filename, archive.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                # the reader stops with an error where the content is longer than it says
                path.write_bytes(packed.read(each))
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError) as error:
        raise InputError(
            f"{str(archive)!r} cannot be unpacked ({error}); download it again."
        ) from error
