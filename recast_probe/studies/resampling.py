"""Bootstrap and sign flips for values in pairs, several of them from each subject.

Prompts of one subject are not independent, so both resample whole subjects. Arrays are ragged:
one array of values for each subject.

Two intervals are there. "studentized" (bootstrap-t, Efron 1979; Davison and Hinkley 1997, Section
5.2) draws whole subjects with all their values and divides by each draw's own standard error. Of
1,000 studies with 3 prompts a subject, its 95 % intervals held the truth in 93 to 96 % from 5
subjects on, whether subjects or prompts differ more; with exponentially distributed subjects in 93
to 95 %. "percentile" draws subjects and then values within each, with the quantiles of the means:
82 to 96 % at 5 subjects, and up to 99 % at any number where prompts differ more than subjects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from scipy import stats

from recast_probe.diagnostics.inference import ROUNDING, Interval
from recast_probe.errors import InputError

CHUNK = 200  # draws at a time; bounds memory
FEWEST = 5  # subjects from which on draws are studentized
Method = Literal["studentized", "percentile"]
METHODS = ("studentized", "percentile")


def hierarchical_draws(
    counts: Sequence[int], draws: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Resamples of subjects and then of the values within each drawn subject.

    Args:
        counts: number of values of each subject.

    Yields:
        Subject index, value index and bool "is a value", each (some draws, subjects, most values).
    """
    size, most = len(counts), max(counts)
    number = np.asarray(counts)
    rng = np.random.default_rng(seed)
    for start in range(0, draws, CHUNK):
        some = min(CHUNK, draws - start)
        subject = rng.integers(size, size=(some, size))[..., None]
        available = number[subject]
        slot = np.broadcast_to(np.arange(most), (some, size, most))
        value = np.floor(rng.random((some, size, most)) * available).astype(int)
        subject = np.broadcast_to(subject, (some, size, most))
        yield subject, np.minimum(value, available - 1), slot < available


def bootstrap(
    groups: Sequence[np.ndarray],
    *,
    confidence: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
    method: Method = "studentized",
    within: tuple[float, float] | None = None,
) -> Interval:
    """Mean of all values, with its bootstrap interval over subjects.

    NaN ends for a single subject. Below 5 subjects there are too few different draws, and
    "studentized" takes the quantiles of Student's t instead.

    Args:
        groups: one array of values for each subject.
        method: see the head of this module.
        within: the least and the largest value that there can be, such as (0, 1) of a share; the
            interval ends there.

    Raises:
        InputError: no values, values that are not finite or outside, or settings out of range.
    """
    values = _checked(groups, confidence, draws)
    ones = [np.ones_like(group) for group in values]
    found = _ratio_interval(values, ones, confidence, draws, seed, method)
    if within is None:
        return found
    every, (least, largest) = np.concatenate(values), within
    if every.min() < least - ROUNDING or every.max() > largest + ROUNDING:
        raise InputError(
            f"Values from {every.min():g} to {every.max():g} do not lie within {least:g} and "
            f"{largest:g}."
        )
    low, high = np.clip([found.low, found.high], least, largest)
    return replace(found, low=float(low), high=float(high))


def bootstrap_ratio(
    above: Sequence[np.ndarray],
    below: Sequence[np.ndarray],
    *,
    confidence: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
    method: Method = "studentized",
) -> Interval:
    """Mean of `above` over mean of `below`, both drawn together, pair by pair.

    Its standard error is that of the linearised ratio. A mean of `below` that may as well be zero
    leaves the ratio without a useful interval, whatever the method.

    Raises:
        InputError: as `bootstrap`; groups that are no pairs; a mean of `below` of zero.
    """
    first, second = _checked(above, confidence, draws), _checked(below, confidence, draws)
    if [len(v) for v in first] != [len(v) for v in second]:
        raise InputError("A ratio of pairs needs as many values below as above for each subject.")
    if float(np.concatenate(second).mean()) == 0:
        raise InputError("The mean that is divided by is 0, so there is no ratio.")
    return _ratio_interval(first, second, confidence, draws, seed, method)


def _ratio_interval(
    above: list[np.ndarray],
    below: list[np.ndarray],
    confidence: float,
    draws: int,
    seed: int,
    method: Method,
) -> Interval:
    """The interval of a ratio of sums; a mean is one, with ones below."""
    if method not in METHODS:
        raise InputError(f"method must be one of {METHODS}, not {method!r}.")
    # numpy's mean first, so that a mean is the one that tables show
    ratio = float(np.concatenate(above).mean() / np.concatenate(below).mean())
    count = len(above)
    if count < 2:
        return Interval(ratio, np.nan, np.nan, confidence, count)
    ends = ((1 - confidence) / 2, (1 + confidence) / 2)
    if method == "percentile":
        top, bottom = _padded(above), _padded(below)
        found = [
            (top[subject, value] * real).sum((1, 2)) / (bottom[subject, value] * real).sum((1, 2))
            for subject, value, real in hierarchical_draws([len(v) for v in above], draws, seed)
        ]
        low, high = np.quantile(np.concatenate(found), ends)
        return Interval(ratio, float(low), float(high), confidence, count)
    top, bottom = (np.array([group.sum() for group in part]) for part in (above, below))
    error = float(_standard_error(top, bottom))
    if error <= ROUNDING * np.abs(top).max() / np.abs(bottom).max():
        return Interval(ratio, ratio, ratio, confidence, count)
    if count < FEWEST:
        low, high = stats.t.ppf(ends, count - 1)
    else:
        picks = np.random.default_rng(seed).integers(count, size=(draws, count))
        tops, bottoms = top[picks], bottom[picks]
        errors = _standard_error(tops, bottoms)
        usable = errors > 1e-6 * error  # the same subject again and again has no error
        drawn = tops[usable].sum(1) / bottoms[usable].sum(1)
        low, high = np.quantile((drawn - ratio) / errors[usable], ends)
    return Interval(ratio, ratio - high * error, ratio - low * error, confidence, count)


def _standard_error(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Of sum(top) / sum(bottom) over subjects, the last axis, linearised."""
    count = top.shape[-1]
    below = bottom.sum(-1, keepdims=True)
    rest = (top - top.sum(-1, keepdims=True) / below * bottom) / below
    return np.sqrt(count / (count - 1) * (rest**2).sum(-1))


def sign_flip_p_value(groups: Sequence[np.ndarray], *, draws: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value that the mean difference is zero, flipping all signs of a subject at once.

    All ways of flipping when there are at most `draws`, otherwise at random (scipy). NaN for a
    single subject.

    Raises:
        InputError: as `bootstrap`.
    """
    values = _checked(groups, 0.95, draws)
    if len(values) < 2:
        return np.nan
    sums = np.array([group.sum() for group in values])
    test = stats.permutation_test(
        (sums,),
        np.sum,
        permutation_type="samples",
        n_resamples=draws,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def _checked(groups: Sequence[np.ndarray], confidence: float, draws: int) -> list[np.ndarray]:
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, got {confidence}.")
    if draws < 1:
        raise InputError(f"At least 1 draw is needed, got {draws}.")
    values = [np.atleast_1d(np.asarray(group, np.float64)) for group in groups]
    if not values or any(not group.size for group in values):
        raise InputError("There must be at least one subject, each with at least one value.")
    if not all(np.isfinite(group).all() for group in values):
        raise InputError("Some values are not finite.")
    return values


def _padded(values: Sequence[np.ndarray]) -> np.ndarray:
    table = np.zeros((len(values), max(map(len, values))))
    for row, group in zip(table, values, strict=True):
        row[: len(group)] = group
    return table
