"""Heaps of texts in an HDF5 file, checked before the library sees them.

HDF5 keeps texts of any length in heaps, and its reader loops for ever in one whose sizes are wrong.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from recast_probe.errors import InputError

SIGNATURE = b"GCOL\x01"
HEAD, OBJECT = struct.Struct("<4sB3xQ"), struct.Struct("<HH4xQ")
"""Of a heap: signature, version and size; of an object in it: number, references and size."""
PART = 1 << 22


def check_heaps(file: BinaryIO, size: int) -> None:
    """Check every heap in the first `size` bytes of a file: its objects fill it, one after another.

    Raises:
        InputError: one does not.
    """
    start = 0
    while start < size:
        file.seek(start)
        part = file.read(min(PART + len(SIGNATURE) - 1, size - start))
        found = part.find(SIGNATURE)
        while found >= 0:
            _check_heap(file, start + found, size)
            found = part.find(SIGNATURE, found + 1)
        start += PART


def _check_heap(file: BinaryIO, address: int, end: int) -> None:
    file.seek(address)
    head = file.read(HEAD.size)
    length = HEAD.unpack(head)[2] if len(head) == HEAD.size else 0
    if not HEAD.size <= length <= end - address:
        return  # HDF5 takes it for no heap either
    body = file.read(length - HEAD.size)
    at = 0
    while at + OBJECT.size <= len(body):
        number, _, content = OBJECT.unpack_from(body, at)
        # what is free, number 0, counts its head; contents are filled up to 8 bytes
        needed = OBJECT.size + -(-content // 8) * 8 if number else content
        if needed < OBJECT.size or at + needed > len(body):
            raise InputError("a heap of texts in it contradicts itself.")
        at += needed
