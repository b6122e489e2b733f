"""JSON that vouches for itself: it holds the SHA-256 of all its other contents.

The digest is taken over canonical JSON (keys sorted, no spaces, ASCII), so it holds for what a
file says, however it is laid out.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recast_probe.errors import DamagedFileError, InputError
from recast_probe.files import input_files
from recast_probe.files.atomic import write_json

MAX_BYTES = 64 * 2**20
DIGEST = "sha256"
CONTENTS = "contents.json"
_RESERVED = ("format", "version", DIGEST)


def plain(values: Any) -> Any:
    """The values as JSON gives them back: tuples are lists, and every key is a text.

    Raises:
        InputError: something that strict JSON has no place for: NaN, infinity, an object, a text
            that is no Unicode.
    """
    try:
        text = json.dumps(values, ensure_ascii=False, allow_nan=False)
        text.encode()
        return input_files.parse_json(text, "What is to be stored", any_text=True)
    except InputError:
        raise
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"This cannot be stored as JSON: {error}.") from None


def digest(values: Any) -> str:
    """SHA-256 (hexadecimal) of plain values' canonical JSON."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sealed(values: Mapping[str, Any], kind: str, version: int = 1) -> dict[str, Any]:
    """The values with their format, its version and their digest, ready for a file.

    Raises:
        InputError: no JSON, or a name that the seal itself needs.
    """
    taken = [name for name in _RESERVED if name in values]
    if taken:
        raise InputError(f"The name {taken[0]!r} is taken by the seal of the file.")
    found = plain({"format": f"recast_probe.{kind}", "version": version, **values})
    return {**found, DIGEST: digest(found)}


def unsealed(found: Any, where: str, kind: str, version: int = 1) -> dict[str, Any]:
    """What `sealed` was given.

    Args:
        found: parsed JSON.
        where: what it was read from, for the error.
        version: the newest that is known; older ones are taken too.

    Raises:
        DamagedFileError: foreign, changed, or of a newer version.
    """
    name = f"recast_probe.{kind}"
    if not isinstance(found, dict) or found.get("format") != name:
        raise DamagedFileError(
            f"{where} is damaged, none of ours, or of an earlier recast_probe: its format is not "
            f"{name!r}."
        )
    check_digest(found, where)
    given = found.get("version")
    if not isinstance(given, int) or not 1 <= given <= version:
        raise DamagedFileError(
            f"{where} has version {given!r} of {name}, and this recast_probe reads up "
            f"to {version}; upgrade recast_probe."
        )
    return without_seal(found)


def without_seal(found: Mapping[str, Any]) -> dict[str, Any]:
    """The values without format, version and digest, unchecked."""
    return {key: value for key, value in found.items() if key not in _RESERVED}


def check_digest(found: Mapping[str, Any], where: str) -> None:
    """Check that an object is what its digest was taken of.

    Raises:
        DamagedFileError: it is not, or it has no digest.
    """
    if found.get(DIGEST) != digest({key: each for key, each in found.items() if key != DIGEST}):
        raise DamagedFileError(
            f"{where} is damaged: its contents do not match the checksum that was saved with them."
        )


def parse_json(text: str | bytes, where: str) -> Any:
    """Strict JSON: finite numbers, and no name twice in one object.

    Raises:
        DamagedFileError: no such JSON; `where` says what was read.
    """
    try:
        return input_files.parse_json(text, where, any_text=True)
    except InputError as error:
        raise DamagedFileError(f"{where} cannot be read as JSON: {error}") from None


def read_json(path: str | Path, max_bytes: int = MAX_BYTES) -> Any:
    """Strict JSON of a file. Where it is sealed its digest must hold; others, such as those written
    by hand, are taken as they are.

    Raises:
        DamagedFileError: missing, no regular file, too large, no strict JSON, or changed.
    """
    found = parse_json(read_bytes(path, max_bytes), str(path))
    if isinstance(found, dict) and DIGEST in found:
        check_digest(found, str(path))
    return found


def read_sealed(
    path: str | Path, kind: str, version: int = 1, max_bytes: int = MAX_BYTES
) -> dict[str, Any]:
    """What `sealed` was given, from a file.

    Raises:
        DamagedFileError: missing, damaged, foreign, or of a newer version.
    """
    found = parse_json(read_bytes(path, max_bytes), str(path))
    return unsealed(found, str(path), kind, version)


def read_bytes(path: str | Path, max_bytes: int) -> bytes:
    """A regular file's bytes.

    Raises:
        DamagedFileError: missing, no regular file, unreadable, or larger than allowed.
    """
    try:
        # a pipe would be waited for, a device may never end
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DamagedFileError(f"{path} is no file.")
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, DamagedFileError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise DamagedFileError(f"{path} cannot be read: {reason}.") from None
    if len(data) > max_bytes:
        raise DamagedFileError(f"{path} is larger than {max_bytes:,} bytes.")
    return data


def file_digest(path: str | Path) -> str:
    """SHA-256 (hexadecimal) of a regular file.

    Raises:
        DamagedFileError: missing, no regular file, or unreadable.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DamagedFileError(f"{path} is no file.")
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read: {error.strerror}.") from None


def digests(files: Iterable[Path], folder: Path) -> dict[str, str]:
    """The digest of each file, by its path below a folder."""
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def seal_folder(folder: Path) -> None:
    """Write down the digest of every file of a folder, and below it, in `contents.json`."""
    write_json(folder / CONTENTS, sealed({"files": _contents(folder)}, "Folder"))


def check_folder(folder: Path) -> None:
    """Check that a folder holds what `seal_folder` wrote down, no more and no less.

    Raises:
        DamagedFileError: no sealed folder, or a file that is missing, changed or new.
    """
    listed = folder / CONTENTS
    if not listed.is_file():
        raise DamagedFileError(
            f"{folder} has no {CONTENTS}, which says what belongs to it: it was cut short, or an "
            "earlier recast_probe wrote it. Remove it, and it is made anew."
        )
    wanted, found = read_sealed(listed, "Folder")["files"], _contents(folder)
    other = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    if other:
        raise DamagedFileError(
            f"{folder} is damaged: {other[0]} is not as it was written. Copy the folder again, or "
            "remove it, and it is made anew."
        )


def _contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    return digests([path for path in files if path != folder / CONTENTS], folder)
