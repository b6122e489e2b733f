"""Checks of arguments that many callables share."""

from __future__ import annotations

import math
import operator
from fractions import Fraction
from numbers import Real
from typing import Any

from recast_probe.errors import InputError


def whole_number(name: str, value: Any, least: int) -> int:
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


def finite_number(name: str, value: Any) -> float:
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
