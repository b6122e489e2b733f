"""Which values a measured number can have, by its name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from recast_probe.errors import InputError

RANGES = (
    # of differences, before the quantities that they are of
    ("_above_", -2.0, 2.0),
    ("entropy_fall", -64.0, 64.0),
    ("entropy", 0.0, 64.0),
    ("auroc", 0.0, 1.0),
    ("top25", 0.0, 1.0),
    ("spearman", -1.0, 1.0),
    # of a centred cosine, whose means may lie below 0 or next to it
    ("retention", -1e6, 1e6),
    ("speed_up", 0.0, 1e6),
    ("tokens", 1.0, 1e9),
)
"""Part of a name, and the least and the largest value; the first that fits counts. Bits are those
of fewer than 2 ** 64 tokens."""


def check_possible(name: str, value: Any) -> None:
    """Check a measured number: finite, and in the range of what its name says.

    Args:
        value: a number, or a mapping with mean and, where they are known, low, high and p_value.

    Raises:
        InputError: another type, not finite, or outside; the message gives name and value.
    """
    if not isinstance(value, Mapping):
        _check_number(name, value, *_range(name))
        return
    if "mean" not in value:
        raise InputError(f"the measured {name} has no mean, but {_short(sorted(map(str, value)))}")
    _check_number(f"{name}'s mean", value["mean"], *_range(name))
    for part in ("low", "high"):
        if value.get(part) is not None:
            _check_number(f"{name}'s {part}", value[part], -math.inf, math.inf)
    if value.get("p_value") is not None:
        _check_number(f"{name}'s p_value", value["p_value"], 0.0, 1.0)
    low, high = value.get("low"), value.get("high")
    if low is not None and high is not None and low > high:
        raise InputError(f"the interval of the measured {name} ends before it begins")


def check_together(values: Mapping[str, Any]) -> None:
    """Check entropies against the largest that there can be, each number being possible by itself.

    Raises:
        InputError: an entropy, or a fall, beyond it; the message gives name and value.
    """
    if (given := values.get("entropy_maximum")) is None:
        return
    most = _mean(given)
    for name in ("entropy_first", "entropy_last", "entropy_fall"):
        if name in values and abs(_mean(values[name])) > most * (1 + 1e-6):
            raise InputError(
                f"the measured {name} is {_mean(values[name]):g}, and its maximum is {most:g} bits"
            )


def _mean(value: Any) -> float:
    return float(value["mean"] if isinstance(value, Mapping) else value)


def _range(name: str) -> tuple[float, float]:
    fits = ((least, most) for part, least, most in RANGES if part in name)
    return next(fits, (-math.inf, math.inf))


def _check_number(name: str, value: Any, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"the measured {name} is {_short(value)}, which is no number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not (math.isfinite(number) and least <= number <= most):
        raise InputError(
            f"the measured {name} is {_short(value)}; it lies from {least:g} to {most:g}"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
