"""Attention in 8 bits, with its error, and packed within a budget of bytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

LEVELS = 254
"""Codes above 0; the highest is the largest value of a row."""
ABSENT = 255
"""The code of NaN: a token that was not there."""
PART = 1 << 24


@dataclass(frozen=True)
class Coded:
    """Values from 0 up in 8 bits each, by the square root of their share of the row's largest.

    Attributes:
        codes: uint8, the shape of the values.
        scales: float32, without the last axis: the largest value of each row.
        error: the largest difference of a value and what is decoded.

    Examples:
        >>> found = coded(np.array([[0.5, 0.02, np.nan, 0.0]], np.float32))
        >>> found.codes, round(found.error, 5)
        (array([[254,  51, 255,   0]], dtype=uint8), 0.00016)
        >>> decoded(found.codes, found.scales).round(3)
        array([[0.5 , 0.02,  nan, 0.  ]], dtype=float32)
    """

    codes: np.ndarray
    scales: np.ndarray
    error: float


def coded(values: np.ndarray) -> Coded:
    """Values in 8 bits; attention has a few large values and many small ones, so small ones get
    finer steps."""
    width = values.shape[-1]
    rows = values.reshape(-1, width)
    codes = np.empty(rows.shape, np.uint8)
    scales = np.zeros(len(rows), np.float32)
    error = 0.0
    step = max(1, PART // max(width, 1))
    for start in range(0, len(rows), step):
        part = np.asarray(rows[start : start + step], np.float32)
        absent = np.isnan(part)
        there = np.where(absent, 0, np.maximum(part, 0))
        scale = there.max(-1) if width else np.zeros(len(part), np.float32)
        shares = there / np.where(scale > 0, scale, 1)[:, None]
        found = np.rint(np.sqrt(shares) * LEVELS).astype(np.uint8)
        found[absent] = ABSENT
        codes[start : start + step], scales[start : start + step] = found, scale
        difference = np.abs(decoded(found, scale) - there)
        error = max(error, float(np.nanmax(difference, initial=0.0)))
    return Coded(codes.reshape(values.shape), scales.reshape(values.shape[:-1]), error)


def decoded(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The values of codes, float32; NaN where nothing was."""
    shares = (codes.astype(np.float32) / LEVELS) ** 2
    return np.where(codes == ABSENT, np.nan, shares * scales[..., None]).astype(np.float32)


def packed(array: np.ndarray, most: int) -> bytes | None:
    """The bytes of an array, packed by zlib (little-endian); None where they are more than `most`.

    It stops as soon as that is known.

    Examples:
        >>> len(packed(np.zeros(10_000, np.uint8), 100)) < 100
        True
        >>> packed(np.arange(1000, dtype=np.float32), 100) is None
        True
    """
    packer, parts, size = zlib.compressobj(6), [], 0
    for part in _parts(array):
        parts.append(packer.compress(part))
        size += len(parts[-1])
        if size > most:
            return None
    parts.append(packer.flush())
    return b"".join(parts) if size + len(parts[-1]) <= most else None


def _parts(array: np.ndarray) -> Iterator[bytes]:
    plain = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    raw = plain.reshape(-1).view(np.uint8)
    for start in range(0, len(raw), PART):
        yield raw[start : start + PART].tobytes()
