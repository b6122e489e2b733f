"""Opening files that somebody else made: regular ones only, of a size that is expected, and JSON
whose every value stands there once."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from recast_probe.errors import InputError, RecastProbeError

LARGEST_TEXT = 16 * 2**20
"""Bytes of a table, a summary or another text; the largest published one has a tenth of it."""
DEEPEST_JSON = 64
"""Lists and objects inside each other; files of this package and of benchmarks have below ten."""


def check_text(text: str, what: str) -> str:
    """A text that can be written as UTF-8, which half a surrogate pair cannot.

    Raises:
        InputError: it cannot; the message names the first such character.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{what} holds {text[error.start]!a}, half of a surrogate pair, which is no character; "
            "it comes from text that was not in UTF-8."
        ) from None
    return text


def check_path(path: str | Path, what: str, error: type[RecastProbeError] = InputError) -> Path:
    """A path that the file system can be asked about.

    Raises:
        InputError or `error`: a web address, or a NUL or half a surrogate pair in it.
    """
    if re.match(r"(https?|ftp|file|s3|gs|hf):/|data:\w+/", text := str(path)):
        raise error(
            f"{what}: {text[:200]!r} is a web address, and nothing is fetched from there; download "
            "it first and give the path of the file."
        )
    if "\0" in text:
        raise error(f"{what}: {text[:200]!r} is no path, as it holds a NUL.")
    return Path(path)


@contextmanager
def opened(
    path: str | Path, what: str, error: type[RecastProbeError] = InputError
) -> Iterator[BinaryIO]:
    """A regular file, open for reading.

    A pipe, device or folder is refused without waiting for it, and what is read is the file that
    was asked about, whatever happens to its path meanwhile.

    Args:
        what: what it is, for messages, such as "The reference image".
        error: raised where it cannot be read.

    Raises:
        InputError or `error`: no such file, no regular one, not allowed, a path that is none.
    """
    path = check_path(path, what, error)
    try:
        # without O_NONBLOCK the opening of a named pipe waits for a writer
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
    except (OSError, ValueError) as cause:
        if isinstance(cause, FileNotFoundError | NotADirectoryError):
            raise error(f"{what}: there is no file {_told(path)}; check the path.") from None
        raise error(f"{what}: {_told(path)} cannot be read: {_reason(cause)}.") from None
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise error(f"{what}: there is no file {_told(path)}, but {_kind(mode)} of that name.")
    with os.fdopen(handle, "rb") as file:
        yield file


_BINARY = getattr(os, "O_BINARY", 0)  # of Windows


def read_bytes(
    path: str | Path, what: str, most: int, error: type[RecastProbeError] = InputError
) -> bytes:
    """The content of a regular file of at most so many bytes.

    Raises:
        InputError or `error`: as `opened` does, or a larger file.
    """
    with opened(path, what, error) as file:
        try:
            content = file.read(most + 1)
        except OSError as cause:
            raise error(f"{what}: {_told(path)} cannot be read: {_reason(cause)}.") from None
    if len(content) > most:
        raise error(
            f"{what}: {_told(path)} is larger than {most / 2**20:,.0f} MiB, the most for such a "
            "file."
        )
    return content


def read_text(path: str | Path, what: str) -> str:
    """A text file in UTF-8, with or without byte order mark; lines end in "\\n".

    Raises:
        InputError: it cannot be read, is too large, or in another encoding.
    """
    content = read_bytes(path, what, LARGEST_TEXT)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise InputError(
            f"{what}: {_told(path)} is not in UTF-8 ({cause}); save it again."
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_json(text: str | bytes, where: str, any_text: bool = False) -> Any:
    """What a JSON text holds; stricter than Python, which takes more than JSON allows.

    Args:
        where: what holds it, for messages.
        any_text: also text with half a surrogate pair.

    Raises:
        InputError: no JSON, a name twice in one object, NaN or an infinite number, text with half
            a surrogate pair, or values nested deeper than `DEEPEST_JSON`.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise _RefusedError(
                    f"{where} has {name!r} twice in one object; keep the right one."
                )
            found[name] = value
        return found

    def no_number(text: str) -> Any:
        raise _RefusedError(f"{where} holds {text[:40]}, which is no number of JSON.")

    def finite(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else no_number(text)

    try:
        # json would take bytes of half a surrogate pair
        found = json.loads(
            text.decode() if isinstance(text, bytes) else text,
            object_pairs_hook=once,
            parse_constant=no_number,
            parse_float=finite,
        )
    except _RefusedError as refusal:
        raise InputError(str(refusal)) from None
    except RecursionError:
        raise InputError(f"{where} is nested too deeply to be read.") from None
    except ValueError as cause:  # also UnicodeDecodeError, and integers of thousands of digits
        raise InputError(f"{where} is not JSON ({cause}).") from None
    _check_values(found, where, DEEPEST_JSON, any_text)
    return found


class _RefusedError(Exception):
    """Not a ValueError, which would be told as broken JSON."""


def _check_values(value: Any, where: str, deepest: int, any_text: bool) -> None:
    if isinstance(value, str) and not any_text:
        check_text(value, where)
    if isinstance(value, dict | list):
        if not deepest:
            raise InputError(f"{where} is nested deeper than {DEEPEST_JSON} levels.")
        for name in value if isinstance(value, dict) else ():
            _check_values(name, where, deepest, any_text)
        for each in value.values() if isinstance(value, dict) else value:
            _check_values(each, where, deepest - 1, any_text)


def is_file(path: str | Path) -> bool:
    """Whether a path is that of a file; False also where the system cannot be asked about it."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: str | Path) -> bool:
    """Whether a path is that of a folder; False also where the system cannot be asked about it."""
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _told(path: str | Path) -> str:
    text = str(path)
    return repr(text if len(text) <= 300 else f"{text[:120]}...{text[-120:]}")


def _reason(cause: Exception) -> str:
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause)


def _kind(mode: int) -> str:
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((name for test, name in kinds.items() if test(mode)), "a device")
