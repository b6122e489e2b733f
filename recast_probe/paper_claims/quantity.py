"""A measured quantity: a mean, and where they are known its interval, p-value and sample size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recast_probe.errors import InputError

ROUNDING = 1e-9


@dataclass(frozen=True)
class Quantity:
    """A mean over subjects.

    Attributes:
        mean: the estimate.
        low, high: ends of its 95 % interval; None where none can be told.
        p_value: two-sided, that a difference is 0; None for no difference or an unknown one.
        count: independent subjects; None where it was not said.
        alone: given as a plain number, with nothing that says how sure it is.

    Examples:
        >>> Quantity.read("auroc", {"mean": 0.8, "low": 0.7, "high": 0.9, "subjects": 12}).count
        12
    """

    mean: float
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    count: int | None = None
    alone: bool = False

    @classmethod
    def read(cls, name: str, value: Any) -> Quantity:
        """A plain number, or a mapping with mean and some of low, high, p_value and count (or
        subjects, as tables call it).

        Raises:
            InputError: anything else, numbers that are not finite, ends that do not enclose the
                mean, or a count that is not a whole number of at least 1.
        """
        if not isinstance(value, Mapping):
            return cls(_number(name, value), alone=True)
        if value.get("mean") is None:
            raise InputError(f"The measured {name} has no mean: {dict(value)}.")
        known = {
            part: None if value.get(part) is None else _number(f"{name}'s {part}", value[part])
            for part in ("mean", "low", "high", "p_value", "count")
        }
        if known["count"] is None and value.get("subjects") is not None:
            known["count"] = _number(f"{name}'s subjects", value["subjects"])
        found = cls(
            known["mean"],  # type: ignore[arg-type]
            # half an interval tells nothing
            None if known["high"] is None else known["low"],
            None if known["low"] is None else known["high"],
            known["p_value"],
            None if known["count"] is None else _count(name, known["count"]),
        )
        if found.low is not None and found.high is not None and found.low > found.high:
            raise InputError(f"The interval of {name} ends before it begins: {dict(value)}.")
        if found.low is not None and found.high is not None:
            rounding = ROUNDING * max(abs(found.low), abs(found.high))
            if not found.low - rounding <= found.mean <= found.high + rounding:
                raise InputError(f"The interval of {name} does not hold its mean: {dict(value)}.")
        if found.p_value is not None and not 0 <= found.p_value <= 1:
            raise InputError(f"The p-value of {name} is {found.p_value}; it lies from 0 to 1.")
        return found

    def text(self, form: str = ".3f") -> str:
        """ "0.734 [0.695, 0.768], n = 50", as far as it is known."""
        parts = f"{self.mean:{form}}"
        if self.low is not None and self.high is not None:
            # the sign that a difference carries would only repeat in its ends
            ends = form.replace("+", "")
            parts += f" [{self.low:{ends}}, {self.high:{ends}}]"
        return parts if self.count is None else f"{parts}, n = {self.count}"


def _number(name: str, value: Any) -> float:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        number = float(value) if known else math.nan
    except OverflowError:  # an integer beyond all floats
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"The measured {name} is {value!r:.60}, and no finite number.")
    return number


def _count(name: str, value: float) -> int:
    if value < 1 or value != int(value):
        raise InputError(f"The measured {name} is of {value:g} subjects, and no whole number.")
    return int(value)
