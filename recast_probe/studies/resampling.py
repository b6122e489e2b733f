"""Intervals and sign flips of studies, under the names that studies use.

They re-export the methods of `diagnostics.intervals` and `diagnostics.inference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from recast_probe.diagnostics.inference import sign_flip_p_value
from recast_probe.diagnostics.intervals import (
    SINGLE,
    Interval,
    checked_groups,
    difference_interval,
    mean_interval,
    untold,
)
from recast_probe.diagnostics.intervals import ratio_interval as bootstrap_ratio
from recast_probe.errors import InputError

__all__ = ["bootstrap", "bootstrap_ratio", "difference_interval", "sign_flip_p_value"]

Method = Literal["studentized", "percentile"]


def bootstrap(
    groups: Sequence[np.ndarray],
    *,
    within: tuple[float, float] | None = None,
    confidence: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
    method: Method = "studentized",
) -> Interval:
    """`mean_interval`: the mean of all values, with its interval over subjects.

    Args:
        groups, within, confidence, draws, seed: as `mean_interval`.
        method: "percentile" gives the quantiles of the means of resampled subjects instead, to
            compare with other tools; it is too narrow at few subjects, and nothing here uses it.

    Raises:
        InputError: as `mean_interval`; an unknown method.

    Examples:
        >>> bootstrap([np.array([1.0, 3.0]), np.array([2.0]), np.array([4.0])]).mean
        2.5
    """
    found = mean_interval(groups, within=within, confidence=confidence, draws=draws, seed=seed)
    if method == "studentized":
        return found
    if method != "percentile":
        raise InputError(f'method must be "studentized" or "percentile", not {method!r}.')
    values = checked_groups(groups, confidence, draws)
    count = len(values)
    if count < 2:
        return untold(found.mean, confidence, count, method, SINGLE)
    totals = np.array([[group.sum(), len(group)] for group in values])
    picks = np.random.default_rng(seed).integers(count, size=(draws, count))
    drawn = totals[picks].sum(1)
    ends = ((1 - confidence) / 2, (1 + confidence) / 2)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], ends)
    return Interval(found.mean, float(low), float(high), confidence, count, method)
