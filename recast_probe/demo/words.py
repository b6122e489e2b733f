"""Numbers of the demo's summary in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from recast_probe.diagnostics.intervals import interval_text


def in_words(interval: Mapping[str, Any] | None) -> str:
    """ "0.812 [0.790, 0.835, n=4]"; says so where the ends cannot be told."""
    if interval is None or interval["mean"] is None:
        return "not defined"
    low, high = (
        math.nan if interval[end] is None else float(interval[end]) for end in ("low", "high")
    )
    return interval_text(interval["mean"], low, high, interval["count"])


def least_p(count: int) -> str:
    """The least p-value that flips of so many signs can give."""
    return f"{2 / 2**count:.2g}"


def number_words(value: float | None) -> str:
    """Two digits, or that there is none."""
    return "not defined" if value is None else f"{value:.2g}"
