"""Numbers of a report, as text."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np

from recast_probe.diagnostics.results import Number


def explained(name: str, value: Number | float | int | str | None) -> Number:
    """A summary's entry as a Number; where it brings no label, its name in plain letters."""
    number = value if isinstance(value, Number) else Number(name, value)
    readable = name.replace("_", " ")
    return replace(number, label=number.label or readable[:1].upper() + readable[1:])


def is_number(value: Any) -> bool:
    """True for integers and floats of Python and NumPy, not for True and False."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def reads_as_number(value: Any) -> bool:
    """True for text that begins with a number, such as one with its interval, or says that there
    is none."""
    return (
        isinstance(value, str) and re.match(r"[-+]?\d|not (defined|available)$", value) is not None
    )


def formatted(value: Any) -> str:
    """A value as text: three significant digits, thousands apart, no bare nan or None."""
    if value is None:
        return "not available"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if not is_number(value):
        return str(value)
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    number = float(value)
    if math.isnan(number):
        return "not available"
    if math.isinf(number):
        return "infinite" if number > 0 else "minus infinite"
    if number == 0:
        return "0"
    size = math.floor(math.log10(abs(number)))
    if size < -4:
        return f"{number:.2e}"
    return f"{number:,.{min(max(2 - size, 0), 6)}f}"
