"""Finding files of a benchmark: inside its folder or, for links of the hub's cache, among the files
of that repository; on disk, zipped, or the hub."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from recast_probe.errors import InputError
from recast_probe.files.input_files import (
    check_path,
    check_text,
    is_folder,
    opened,
    parse_json,
    read_text,
)

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
LARGEST_ARCHIVE = 4 * 2**30
"""Bytes that an archive may unpack to; the published ones are below a tenth of it."""
LARGEST_MEMBER = 200 * 2**20
"""Bytes of one unpacked file; a photograph has below a tenth of it."""
MOST_MEMBERS = 200_000
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def inside(folder: Path, name: Any, where: str) -> Path:
    """The file `name` of a folder, if that is a relative path that stays inside.

    Args:
        where: what named it, for the message, such as "data.csv, line 3".

    Raises:
        InputError: not a text, empty, absolute, with a ".." or a drive in it, or a link that leaves
            the folder.
    """
    return staying(folder, folder.joinpath(*_parts(folder, name, where)), where)


def staying(folder: Path, path: Path, where: str) -> Path:
    """A path in a folder, if following its links stays there or, in the hub's cache, among the
    files of the same repository.

    Raises:
        InputError: it does not, or its links go round in circles.
    """
    try:
        target, root = path.resolve(), folder.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{where}: {str(path)[:300]!r} cannot be followed ({error}).") from error
    allowed = [root]
    if "snapshots" in root.parts:
        # a snapshot of the hub's cache consists of links to its repository's blobs
        place = len(root.parts) - 1 - root.parts[::-1].index("snapshots")
        allowed.append(Path(*root.parts[:place], "blobs"))
    if not any(target.is_relative_to(each) for each in allowed):
        raise InputError(
            f"{where}: {str(path)!r} is a link that leaves the folder; put the file itself there."
        )
    return path


def _parts(folder: Path, name: Any, where: str) -> tuple[str, ...]:
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{where}: {name!r} is no path of a file.")
    posix, windows = PurePosixPath(check_text(name, where)), PureWindowsPath(name)
    escapes = posix.is_absolute() or windows.anchor or "\0" in name
    if escapes or ".." in posix.parts or ".." in windows.parts:
        raise InputError(
            f"{where}: {name!r} leaves the folder; paths must be relative to {str(folder)!r} and "
            "stay inside it."
        )
    return posix.parts


def existing_folder(path: str | Path, what: str, layout: str) -> Path:
    """A folder that is there and can be listed.

    Raises:
        InputError: it is not; the message says what it should hold.
    """
    folder = check_path(path, what).expanduser()
    if not is_folder(folder):
        raise InputError(
            f"{what}: there is no folder {str(path)[:300]!r}. It should hold {layout}."
        )
    listed(folder)
    return folder


def listed(folder: Path) -> list[Path]:
    """What lies in a folder, by name.

    Raises:
        InputError: it cannot be listed.
    """
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{str(folder)!r} cannot be listed: {error.strerror}.") from error


def text_of(path: Path) -> str:
    """A text file in UTF-8, with or without byte order mark.

    Raises:
        InputError: it cannot be read, is too large, or is in another encoding.
    """
    return read_text(path, path.name)


def json_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Every object of a JSONL file, with where it stands; empty lines are passed over.

    Raises:
        InputError: a line that is not a JSON object.
    """
    rows = []
    for number, line in enumerate(text_of(path).split("\n"), 1):
        where = f"{path.name}, line {number}"
        if not line.strip():
            continue
        row = parse_json(line, where)
        if not isinstance(row, dict):
            raise InputError(f"{where} is not a JSON object, but {type(row).__name__}.")
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
            return check_text(value.strip(), f"{where}, {name}")
    raise InputError(f"{where} has no text in {' or '.join(names)}; it has {', '.join(row)}.")


def from_hub(repository: str, what: str, layout: str) -> Path:
    """A dataset of the hub: from the cache where it lies complete, else downloaded.

    Raises:
        InputError: it is not in the cache and cannot be downloaded; says how to get it.
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
        InputError: no zip archive, damaged, encrypted, with larger files than `LARGEST_MEMBER` or
            more than `LARGEST_ARCHIVE` of them all, or with a file that would land outside of the
            folder.
        OSError: the cache cannot be written.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recast_probe"
    with opened(archive, "The archive") as stream:
        name = hashlib.file_digest(stream, "sha256").hexdigest()[:16]  # type: ignore[arg-type]
        target = root / f"{archive.stem[:80]}-{name}"
        if target.is_dir():
            return target
        root.mkdir(parents=True, exist_ok=True)
        # written atomically: another run may be waiting for it
        partial = Path(tempfile.mkdtemp(dir=root, prefix=".unpacking-"))
        try:
            _unpack(stream, archive.name, partial, tuple(keep))
            os.replace(partial, target)
        except OSError:
            if not target.is_dir():  # or somebody else was faster
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return target


def _unpack(stream: Any, name: str, folder: Path, keep: tuple[str, ...]) -> None:
    try:
        with zipfile.ZipFile(stream) as packed:
            _unpack_members(packed, _members(packed, keep), name, folder)
    except InputError:
        raise
    # a damaged archive makes its decoders raise nearly anything
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        raise InputError(
            f"{name!r} cannot be unpacked ({error or type(error).__name__}); download it again, or "
            "unpack it yourself and give the folder."
        ) from error


def _members(packed: zipfile.ZipFile, keep: tuple[str, ...]) -> list[zipfile.ZipInfo]:
    return [
        each
        for each in packed.infolist()
        if not each.is_dir()
        and each.filename.lower().endswith(keep)
        and not each.filename.startswith("__MACOSX/")
        # a link's target is its content
        and (each.external_attr >> 16) & 0o170000 != 0o120000
    ]


def _unpack_members(
    packed: zipfile.ZipFile, members: list[zipfile.ZipInfo], name: str, folder: Path
) -> None:
    if len(members) > MOST_MEMBERS:
        raise InputError(f"{name!r} holds {len(members):,} files; the most is {MOST_MEMBERS:,}.")
    total = sum(each.file_size for each in members)
    if total > LARGEST_ARCHIVE or any(each.file_size > LARGEST_MEMBER for each in members):
        raise InputError(f"{name!r} {_TOO_LARGE}.")
    left = LARGEST_ARCHIVE
    for each in members:
        path = folder.joinpath(*_parts(folder, each.filename, name))
        if path.exists():
            raise InputError(f"{name!r} holds {each.filename!r} twice.")
        path.parent.mkdir(parents=True, exist_ok=True)
        # the sizes that an archive tells of itself may be wrong
        most = min(LARGEST_MEMBER, left)
        with packed.open(each) as source, path.open("wb") as unpacked_file:
            size = 0
            while part := source.read(1 << 20):
                size += len(part)
                if size > most:
                    raise InputError(f"{name!r} {_TOO_LARGE}; {each.filename!r} is above it.")
                unpacked_file.write(part)
        left -= size


_TOO_LARGE = (
    f"would unpack to more than is read: {LARGEST_MEMBER >> 20} MiB a file and "
    f"{LARGEST_ARCHIVE >> 30} GiB in all"
)
