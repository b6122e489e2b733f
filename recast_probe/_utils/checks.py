"""Checks of arguments that many callables share."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np

from recast_probe._utils.text_format import spans
from recast_probe.errors import InputError


def check_int(name: str, value: Any, least: int) -> int:
    """An integer argument of at least ``least``.

    Raises:
        InputError: it is not one.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise InputError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return number


def check_indices(
    name: str,
    given: Any,
    available: int | Iterable[int] | None = None,
    *,
    of: str = "",
    empty: bool = False,
) -> list[int]:
    """The indices of steps, heads or tokens that an argument selects.

    Args:
        name: of the argument.
        given: an index or several, counted from 0; None for all that there are.
        available: how many there are, or which; None where only a run can tell.
        of: what they are, such as "reference tokens", for the message.
        empty: whether none at all is a selection.

    Returns:
        Ascending, without repeats.

    Raises:
        InputError: something that is no index, one that there is not, or nothing.

    >>> check_indices("steps", [3, 0, 3], 28)
    [0, 3]
    >>> check_indices("heads", None, 4)
    [0, 1, 2, 3]
    """
    known = range(available) if isinstance(available, int) else available
    if given is None and known is not None:
        given = [int(index) for index in known]
    values = given.tolist() if isinstance(given, np.ndarray) else given
    several = isinstance(values, Iterable) and not isinstance(values, str)
    values = list(values) if several else [values]
    chosen = sorted({check_int(name, value, 0) for value in values})
    if not chosen and not empty:
        raise InputError(f"{name} selects nothing{_of(of, known)}; leave it out to select all.")
    if known is not None and (wrong := sorted(set(chosen).difference(known))):
        raise InputError(f"{name} holds {spans(wrong)}, which is none{_of(of, known)}.")
    return chosen


def _of(what: str, known: Iterable[int] | None) -> str:
    if known is None:
        return ""
    return " ".join(part for part in (" of", what, spans([int(i) for i in known])) if part)


def check_finite(name: str, value: Any) -> float:
    """A number that is neither infinite nor NaN.

    Raises:
        InputError: it is not one.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise InputError(f"{name} must be a finite number, not {value!r}.")
    return float(value)


def share_of(count: int, fraction: float | Fraction) -> int:
    """How many of `count` a fraction means: rounded half up, at least one.

    The fraction is the one that its shortest decimal says, so 0.29 of 50 is exactly 14.5, and 15.
    """
    if not isinstance(fraction, Fraction):
        # a third has no short decimal, but a small denominator
        fraction = Fraction(repr(float(fraction))).limit_denominator(1_000_000)
    return max(1, math.floor(fraction * count + Fraction(1, 2)))
