"""Checks of arguments that many callables share."""

from __future__ import annotations

import operator
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
