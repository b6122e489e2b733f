"""Numbers in words, for messages and figures."""

from __future__ import annotations

from collections.abc import Sequence


def spans(numbers: Sequence[int]) -> str:
    """ "0-3, 7" for [0, 1, 2, 3, 7]."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def plural(word: str, numbers: Sequence[int]) -> str:
    """The word, with an s unless there is exactly one number."""
    return word if len(numbers) == 1 else f"{word}s"


def memory(count: int) -> str:
    """A number of bytes: "44.0 MB"."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= one:
            return f"{count / one:.1f} {unit}"
    return f"{count} bytes"
