"""Intervals of what is not a mean of subjects: agreement over pairs, and rank correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from recast_probe.diagnostics.intervals import (
    ALL_POSSIBLE,
    EQUAL,
    ROUNDING,
    Interval,
    checked_confidence,
    finite,
    untold,
)
from recast_probe.errors import InputError

FEWEST_GROUPS = 4
STEEPEST = 0.9999  # correlations beyond it count as this on Fisher's scale, which ends nowhere
CORRELATION = (-1.0, 1.0)


def mean_of_pairs(
    matrix: np.ndarray, confidence: float = 0.95, within: tuple[float, float] = CORRELATION
) -> Interval:
    """Mean over the pairs of a symmetric matrix (samples, samples), by "jackknife t".

    Samples are left out one by one, not pairs, which share samples and are not independent;
    Student's t with one degree of freedom less than samples. No ends below three samples.

    Args:
        within: the least and largest value that there can be; the interval ends there.

    Raises:
        InputError: a confidence outside (0, 1).

    Examples:
        >>> print(mean_of_pairs(np.array([[1, 0.8, 0.7], [0.8, 1, 0.9], [0.7, 0.9, 1]])))
        0.800 [0.303, 1.000, n=3]
    """
    checked_confidence(confidence)
    count = len(matrix)
    mean = float(matrix[np.triu_indices(count, 1)].mean())
    if count < 3:
        reason = "fewer than three samples make no more than one pair"
        return untold(mean, confidence, count, "jackknife t", reason)
    whole = (matrix.sum() - np.trace(matrix)) / 2
    without = whole - (matrix.sum(1) - np.diagonal(matrix))
    left_out = without / ((count - 1) * (count - 2) / 2)
    return jackknife_interval(mean, left_out, confidence, within)


def jackknife_interval(
    value: float,
    left_out: np.ndarray,
    confidence: float = 0.95,
    within: tuple[float, float] = CORRELATION,
    fisher: bool = False,
) -> Interval:
    """A value with Student's t interval of its jackknife.

    Args:
        left_out: (samples,), the value without each of the independent samples.
        within: the interval ends there.
        fisher: on Fisher's z scale, as for a correlation.
    """
    count, method = len(left_out), "jackknife t" + (" of Fisher's z" if fisher else "")
    if math.isnan(value) or np.isnan(left_out).any():
        return untold(value, confidence, count, method, "it is not defined")
    if np.ptp(np.append(left_out, value)) <= ROUNDING:
        return untold(value, confidence, count, method, EQUAL)
    least, largest = within
    parts = np.append(left_out, value)
    if fisher:
        parts = np.arctanh(np.clip(parts, -STEEPEST, STEEPEST))
    pseudo = count * parts[-1] - (count - 1) * parts[:-1]
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * pseudo.std(ddof=1) / count**0.5
    ends = np.array([parts[-1] - half, parts[-1] + half])
    low, high = np.clip(np.tanh(ends) if fisher else ends, least, largest).tolist()
    if (low, high) == (least, largest):
        return untold(value, confidence, count, method, ALL_POSSIBLE)
    return Interval(value, min(low, value), max(high, value), confidence, count, method)


def spearman_interval(
    first: Any,
    second: Any,
    groups: Sequence[Any] | np.ndarray | None = None,
    *,
    confidence: float = 0.95,
) -> Interval:
    """Spearman correlation of pairs, by the jackknife on Fisher's z scale.

    Pairs that belong together, such as the heads of one block, are left out together: they are not
    independent samples. No ends below four groups.

    Args:
        groups: which group each pair is of; by default each pair is its own.

    Raises:
        InputError: different lengths, fewer than two pairs, values that are not finite, or a
            confidence outside (0, 1).

    Examples:
        >>> print(spearman_interval([1, 2, 3, 4, 5, 6], [1, 3, 2, 4, 6, 5]))
        0.886 [0.371, 0.984, n=6]
    """
    checked_confidence(confidence)
    a, b = finite(np.ravel(first), "values"), finite(np.ravel(second), "values")
    if a.shape != b.shape or len(a) < 2:
        raise InputError(f"A correlation needs two or more pairs, got {a.size} and {b.size}.")
    of = np.arange(len(a)) if groups is None else np.ravel(np.asarray(groups))
    if of.shape != a.shape:
        raise InputError(f"{len(a)} pairs need as many groups, got {of.size}.")
    names = np.unique(of)
    found = _spearman(a, b)
    if len(names) < FEWEST_GROUPS:
        reason = f"fewer than {FEWEST_GROUPS} independent groups"
        return untold(found, confidence, len(names), "jackknife t of Fisher's z", reason)
    left_out = np.array([_spearman(a[of != name], b[of != name]) for name in names])
    return jackknife_interval(found, left_out, confidence, fisher=True)


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """NaN where one side is constant."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    ranks = [stats.rankdata(each) for each in (a, b)]
    x, y = (each - each.mean() for each in ranks)
    return float(np.clip((x * y).sum() / math.sqrt((x**2).sum() * (y**2).sum()), -1, 1))
