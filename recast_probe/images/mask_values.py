"""What the numbers of a mask say: where its inside is, or that they do not say it.

One rule for arrays, pictures and files:

- true and false are what they are, and so are 0 and 1 where there are no other numbers;
- numbers from 0 to 1 are shares of a pixel that lie inside;
- whole numbers have the scale 255 (8 bits) or 65535 (16 bits; 255 where nothing is above it and
  255 itself is reached): two values, 0 and one above half of the scale, are outside and inside,
  and more than two are an outline that was smoothed, so few pixels lie between and none of them
  form areas of one value;
- whatever else is asked about: it could be labels, a photograph or another scale.

A mask that has nothing above one half, or everything, divides nothing and is refused as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recast_probe.errors import InputError

Inside = int | float | str | None
"""The value that marks the inside, where the numbers do not say it: a pixel's value (a palette's
index), or a colour such as "#ff0000"; None for the rule above."""

SCALES = (255, 65535)
NEAR = 0.02
"""Of the scale: pixels this near to its top are inside, as a lossy format leaves them."""
FEWEST, MOST_LABELS = 0.01, 128
"""Share of the pixels from which a value between is looked at as a label, and how many labels there
can be."""


def mask_values(
    values: Any, what: str = "The mask", inside: Inside = None, *, lossy: bool = False
) -> np.ndarray:
    """A mask as float32 in 0..1; the shape is kept.

    Args:
        values: numbers or booleans, shape (height, width) or any other that is not empty.
        what: what it is, for messages.
        inside: the value that marks the inside; all others are outside.
        lossy: they come from a JPEG, which turns black areas into values next to it and holds no
            labels that are that close.

    Raises:
        InputError: no numbers, not finite, negative, or numbers that do not say where the inside
            is; the message gives the values found.

    Examples:
        >>> mask_values(np.array([0, 255])), mask_values(np.array([3, 15]), inside=15)
        (array([0., 1.], dtype=float32), array([0., 1.], dtype=float32))
    """
    if np.ma.is_masked(values):
        raise InputError(
            f"{what} is a numpy.ma array with masked entries, and nothing says whether "
            "they are inside; fill them, as with values.filled(0)."
        )
    given = np.asarray(values)
    if given.dtype.kind not in "buif":
        raise InputError(
            f"{what} has the type {given.dtype}; a mask consists of true and false, or of numbers."
        )
    if not given.size:
        raise InputError(f"{what} is empty.")
    if inside is not None:
        return _equal(given, what, inside)
    if given.dtype == bool:
        return given.astype(np.float32)
    if not np.isfinite(given).all():
        raise InputError(f"{what} has values that are not finite.")
    if given.min() < 0:
        raise InputError(f"{what} has negative values, the least is {given.min()}.")
    # 0 and 1 where there are no other numbers, and shares of a pixel
    if given.max() <= 1:
        return given.astype(np.float32)
    levels, counts = np.unique(given, return_counts=True)
    top = float(levels[-1])
    if given.dtype.kind == "f" and not (levels == np.round(levels)).all():
        scale = next((each for each in SCALES if each * (1 - NEAR) <= top <= each), None)
    else:
        scale = _scale(given.dtype, top)
    if scale is None:
        raise _unclear(given, what, f"its largest value is {top:g}, which is no known scale")
    if top <= scale / 2:
        raise _unclear(given, what, f"no value is above half of {scale}")
    if len(levels) <= 2:
        if levels[0] > NEAR * scale and (len(levels) == 2 or top < scale * (1 - NEAR)):
            raise _unclear(given, what, "none of its values is black, 0")
        return (given > scale / 2).astype(np.float32)
    _check_smooth(given, levels, counts, scale, what, black=NEAR * scale if lossy else 0)
    return given.astype(np.float32) / np.float32(scale)


def check_divides(mask: np.ndarray, what: str = "The mask") -> None:
    """Check that a mask, bool or 0..1, has pixels above one half and pixels that are not.

    Raises:
        InputError: it has not.
    """
    marked = mask > 0.5
    if marked.all() or not marked.any():
        least, most = float(np.min(mask)), float(np.max(mask))
        found = f"its values run from {least:g} to {most:g} of 1, and inside is above 0.5"
        if marked.any():
            raise InputError(
                f"{what} marks every pixel ({found}), so it says nothing; leave it out, or give "
                "one that is black where the subject is not."
            )
        raise InputError(f"{what} marks no pixel ({found}); the subject must be bright in it.")


def values_found(values: np.ndarray) -> str:
    """The commonest values with their share, as "0 (62%), 15 (31%), 255 (7%)"."""
    levels, counts = np.unique(values, return_counts=True)
    commonest = np.sort(np.argsort(-counts, kind="stable")[:6])
    named = [f"{levels[i]:g} ({counts[i] / values.size:.0%})" for i in commonest]
    more = f" and {len(levels) - 6:,} more" if len(levels) > 6 else ""
    return ", ".join(named) + more


def _scale(kind: np.dtype, top: float) -> int | None:
    """What white is in whole numbers; None where it cannot be told."""
    if kind.itemsize == 1:
        return 255
    # an 8-bit mask in a wider type is known by its white
    if top <= 255:
        return 255 if top >= 255 * (1 - NEAR) else None
    return 65535 if top <= 65535 else None


def _check_smooth(
    given: np.ndarray,
    levels: np.ndarray,
    counts: np.ndarray,
    scale: int,
    what: str,
    black: float,
) -> None:
    """Refuse label maps and photographs: between outside and inside lies an outline at most."""
    if levels[-1] < 0.9 * scale:
        raise _unclear(given, what, f"its largest value is {levels[-1]:g} of {scale}")
    between = (levels > NEAR * scale) & (levels < scale * (1 - NEAR))
    if counts[between].sum() > given.size / 2:
        raise _unclear(given, what, "most of its values lie between black and white")
    # a wide blur has every value, and areas of the first and the last ones
    if given.ndim != 2 or min(given.shape) < 2 or len(levels) > MOST_LABELS:
        return
    frequent = counts >= FEWEST * given.size
    for level in levels[frequent & (levels > black) & (levels < scale * (1 - NEAR))]:
        same = given == level
        if 2 * _in_squares(same).sum() > same.sum():
            raise _unclear(given, what, f"the value {level:g} fills areas, as a label does")


def _in_squares(marked: np.ndarray) -> np.ndarray:
    """Pixels of any 2 x 2 that is marked as a whole; a smoothed outline is thinner than that."""
    whole = marked[:-1, :-1] & marked[:-1, 1:] & marked[1:, :-1] & marked[1:, 1:]
    found = np.zeros_like(marked)
    for rows in (slice(None, -1), slice(1, None)):
        for columns in (slice(None, -1), slice(1, None)):
            found[rows, columns] |= whole
    return found


def _equal(given: np.ndarray, what: str, inside: Inside) -> np.ndarray:
    try:
        wanted = float(inside)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(
            f"{what} holds numbers, so what is inside is one of them, not {inside!r}; it has "
            f"{values_found(given)}."
        ) from None
    found = (given == wanted).astype(np.float32)
    if not found.any():
        raise InputError(f"{what} has no value {wanted:g}; it has {values_found(given)}.")
    return found


def _unclear(given: np.ndarray, what: str, why: str) -> InputError:
    return InputError(
        f"{what} does not say what is inside: {why}. It has the values {values_found(given)}. "
        "Save it in black and white (0 and 255), give an array of shares from 0 to 1, or name the "
        "value that is inside (inside=VALUE, --mask-inside VALUE)."
    )
