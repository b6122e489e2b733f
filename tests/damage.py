"""Files with a flipped bit."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

# in each file; more of them: FLIPS=5000 python -m pytest tests/test_flipped_bits.py
FLIPS = int(os.environ.get("FLIPS", "200"))


def flipped(data: bytes, flips: int = FLIPS, seed: int = 0) -> Iterator[bytes]:
    """The data with one bit changed, once in each of so many equal parts, and in both ends."""
    rng, size = random.Random(seed), len(data)
    places = [
        rng.randrange(size * part // flips, size * (part + 1) // flips + 1) for part in range(flips)
    ]
    for place in (0, *(min(each, size - 1) for each in places), size - 1):
        yield data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def found_or_same(
    path: Path,
    read: Callable[[], object],
    errors: type[Exception] | tuple[type[Exception], ...],
    same: Callable[[object], bool],
    flips: int = FLIPS,
) -> int:
    """Flip bits of a file, one after the other, and count those that were found.

    Args:
        read: reads whatever the file belongs to.
        errors: say that damage was found; any other one fails the test.
        same: whether what was read is what was written; it fails the test where it is not.
    """
    whole, found = path.read_bytes(), 0
    try:
        for number, data in enumerate(flipped(whole, flips)):
            path.write_bytes(data)
            try:
                back = read()
            except errors:
                found += 1
            else:
                assert same(back), f"flip {number} of {path.name} changed what was read"
    finally:
        path.write_bytes(whole)
    return found
