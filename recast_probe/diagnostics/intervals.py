"""Confidence intervals: one method for each question, in every interface.

Whole subjects are the independent unit; their values (prompts, seeds) come as one array each. What
each method reaches at few subjects and on skewed data was measured: see docs/statistics.md, made by
``python -m benchmarks.coverage``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from recast_probe._utils.checks import check_int
from recast_probe.errors import InputError

# spread below this part of the largest value is rounding
ROUNDING = 1e-12
FEWEST_DRAWN = 5  # fewest subjects that are resampled
FEWEST_EQUAL = 12  # fewest equal values that show that there is no spread
WIDEST = 3.0  # times Student's t; a wider interval hangs on one subject or two
PSEUDO = 1.0  # observations, half of them at each end of the possible range

SINGLE = "one subject shows no spread"
EQUAL = "a few equal values show no spread"
BLOWN = "it hangs on one or two subjects: draws without them have hardly any spread"
ALL_POSSIBLE = "it would hold everything that is possible"


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: the estimate.
        low, high: the ends; NaN where they cannot be told.
        confidence: 0..1.
        count: independent samples, such as subjects.
        method: how the ends were made; empty for those of other sources.
        cannot_tell: why there are none; empty where there are.

    Examples:
        >>> print(Interval(0.812, 0.79, 0.835, confidence=0.95, count=24))
        0.812 [0.790, 0.835, n=24]
    """

    mean: float
    low: float
    high: float
    confidence: float
    count: int
    method: str = ""
    cannot_tell: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words."""
        return asdict(self)

    def __str__(self) -> str:
        return interval_text(self.mean, self.low, self.high, self.count)


def interval_text(
    mean: float, low: float, high: float, count: int | None = None, digits: int = 3
) -> str:
    """ "0.812 [0.790, 0.835, n=24]" or "0.827 [cannot tell, n=5]".

    Examples:
        >>> interval_text(0.812, 0.79, 0.835, 24)
        '0.812 [0.790, 0.835, n=24]'
    """
    if math.isnan(mean):
        return "not defined"
    ends = "cannot tell" if math.isnan(low + high) else f"{low:.{digits}f}, {high:.{digits}f}"
    return f"{mean:.{digits}f} [{ends}{'' if count is None else f', n={count}'}]"


def untold(mean: float, confidence: float, count: int, method: str, reason: str) -> Interval:
    """A mean without ends, and why."""
    return Interval(mean, math.nan, math.nan, confidence, count, method, reason)


def mean_interval(
    groups: Sequence[np.ndarray],
    *,
    within: tuple[float, float] | None = None,
    confidence: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
) -> Interval:
    """Mean of all values, with its interval over subjects.

    Between two limits, "bounded t": Student's t with half an observation more at either limit, as
    Jeffreys' prior has it for a share. Failures that few subjects did not show are allowed for, and
    the ends stay within the limits. Without limits, as `difference_interval`.

    Args:
        groups: one array of values for each subject.
        within: the least and the largest value that there can be, such as (0, 1) of a share or
            (-1, 1) of a correlation.
        confidence: level of the interval, 0..1.
        draws, seed: bootstrap resamples, and their seed; used without limits.

    Raises:
        InputError: no values, values that are not finite or outside, or settings out of range.

    Examples:
        >>> groups = [np.array([each]) for each in (0.8, 0.7, 0.9, 0.8, 0.6, 0.7)]
        >>> print(mean_interval(groups, within=(0, 1)))
        0.750 [0.477, 0.952, n=6]
    """
    if within is None:
        return difference_interval(groups, confidence=confidence, draws=draws, seed=seed)
    values = checked_groups(groups, confidence, draws)
    least, largest = within
    every = np.concatenate(values)
    if not -math.inf < least < largest < math.inf:
        raise InputError(f"The limits must be finite, the least first, got {least} and {largest}.")
    margin = ROUNDING * max(abs(least), abs(largest))
    if every.min() < least - margin or every.max() > largest + margin:
        raise InputError(
            f"Values from {every.min():g} to {every.max():g} do not lie within {least:g} and "
            f"{largest:g}."
        )
    count, mean, method = len(values), float(every.mean()), "bounded t"
    if count < 2:
        return untold(mean, confidence, count, method, SINGLE)
    total, number = _sums(values), np.array([len(group) for group in values])
    each = number.mean()
    limits = np.array([least, largest])
    centre = (total.sum() + PSEUDO * each * limits.mean()) / (number.sum() + PSEUDO * each)
    squares = (((total - centre * number) / each) ** 2).sum()
    squares += PSEUDO * ((limits - centre) ** 2).mean()
    error = math.sqrt(squares / (count + PSEUDO - 1) / (count + PSEUDO))
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * error
    low, high = max(least, centre - half), min(largest, centre + half)
    if (low, high) == (least, largest):
        return untold(mean, confidence, count, method, ALL_POSSIBLE)
    # rounding apart, the mean lies inside by itself
    return Interval(mean, min(low, mean), max(high, mean), confidence, count, method)


def difference_interval(
    groups: Sequence[np.ndarray],
    *,
    within: tuple[float, float] | None = None,
    confidence: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
) -> Interval:
    """Mean difference, or mean of any quantity without useful limits, over subjects.

    The wider of Student's t and the studentized bootstrap over whole subjects (bootstrap-t, Efron
    1979; Davison and Hinkley 1997, Section 5.2), from 5 subjects on; Student's t below. It cannot
    know of failures that the subjects did not show.

    Args:
        groups: one array of differences for each subject.
        within: the least and largest *score*; differences then have twice that range.
        confidence: level of the interval, 0..1.
        draws, seed: bootstrap resamples, and their seed.

    Raises:
        InputError: as `mean_interval`.

    Examples:
        >>> print(difference_interval([np.array([each]) for each in (0.4, 0.2, 0.3)]))
        0.300 [0.052, 0.548, n=3]
    """
    values = checked_groups(groups, confidence, draws)
    ones = [np.ones_like(group) for group in values]
    found = _studentized(values, ones, confidence, draws, seed)
    if within is None:
        return found
    furthest = within[1] - within[0]
    if max(float(np.abs(group).max()) for group in values) > furthest * (1 + ROUNDING):
        raise InputError(
            f"Differences of scores within {within[0]:g} and {within[1]:g} cannot exceed "
            f"{furthest:g}."
        )
    low, high = max(found.low, -furthest), min(found.high, furthest)
    if (low, high) == (-furthest, furthest):
        return untold(found.mean, confidence, found.count, found.method, ALL_POSSIBLE)
    if found.cannot_tell:
        return found
    return Interval(found.mean, low, high, confidence, found.count, found.method)


def ratio_interval(
    above: Sequence[np.ndarray],
    below: Sequence[np.ndarray],
    *,
    confidence: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
) -> Interval:
    """Mean of `above` over mean of `below`, pair by pair, by the method of `difference_interval`.

    Its standard error is that of the linearised ratio. A mean of `below` that may as well be zero
    leaves the ratio without a useful interval, whatever the method.

    Args:
        above, below: one array for each subject, of equal lengths.
        confidence: level of the interval, 0..1.
        draws, seed: bootstrap resamples, and their seed.

    Raises:
        InputError: as `mean_interval`; groups that are not pairs; a mean of `below` of zero.

    Examples:
        >>> above, below = ([np.array([x]) for x in part] for part in ((2, 4, 7), (1, 2, 3)))
        >>> print(ratio_interval(above, below))
        2.167 [1.619, 2.714, n=3]
    """
    first, second = (checked_groups(part, confidence, draws) for part in (above, below))
    if [len(v) for v in first] != [len(v) for v in second]:
        raise InputError("A ratio of pairs needs as many values below as above for each subject.")
    if float(np.concatenate(second).mean()) == 0:
        raise InputError("The mean that is divided by is 0, so there is no ratio.")
    return _studentized(first, second, confidence, draws, seed)


def _studentized(
    above: list[np.ndarray], below: list[np.ndarray], confidence: float, draws: int, seed: int
) -> Interval:
    """Of a ratio of sums; a mean is one, with ones below."""
    # numpy's mean first, so that a mean is the one that tables show
    ratio = float(np.concatenate(above).mean() / np.concatenate(below).mean())
    count, method = len(above), "Student's t"
    if count < 2:
        return untold(ratio, confidence, count, method, SINGLE)
    top, bottom = _sums(above), _sums(below)
    error = float(_standard_error(top, bottom))
    if error <= ROUNDING * np.abs(top).max() / np.abs(bottom).max():
        if count < FEWEST_EQUAL:
            return untold(ratio, confidence, count, method, EQUAL)
        return Interval(ratio, ratio, ratio, confidence, count, method)
    ends = ((1 - confidence) / 2, (1 + confidence) / 2)
    low, high = student = stats.t.ppf(ends, count - 1)
    if count >= FEWEST_DRAWN:
        method = "studentized bootstrap, at least Student's t"
        picks = np.random.default_rng(seed).integers(count, size=(draws, count))
        tops, bottoms = top[picks], bottom[picks]
        possible = bottoms.sum(1) != 0  # else there is no ratio
        tops, bottoms = tops[possible], bottoms[possible]
        errors = _standard_error(tops, bottoms)
        usable = errors > 1e-6 * error  # the same subject again and again has no error
        drawn = tops[usable].sum(1) / bottoms[usable].sum(1)
        if len(drawn):
            found = np.quantile((drawn - ratio) / errors[usable], ends)
            low, high = min(low, found[0]), max(high, found[1])
        if high - low > WIDEST * np.ptp(student):
            return untold(ratio, confidence, count, method, BLOWN)
    return Interval(
        ratio, float(ratio - high * error), float(ratio - low * error), confidence, count, method
    )


def _standard_error(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Of sum(top) / sum(bottom) over subjects, the last axis, linearised."""
    count = top.shape[-1]
    below = bottom.sum(-1, keepdims=True)
    rest = (top - top.sum(-1, keepdims=True) / below * bottom) / below
    return np.sqrt(count / (count - 1) * (rest**2).sum(-1))


def _sums(groups: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([group.sum() for group in groups])


def checked_confidence(confidence: float) -> None:
    """Raises InputError outside (0, 1)."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, got {confidence}.")


def checked_groups(
    groups: Sequence[np.ndarray], confidence: float = 0.95, draws: int = 1
) -> list[np.ndarray]:
    """One float64 array for each subject; see `mean_interval` for what is refused."""
    checked_confidence(confidence)
    check_int("draws", draws, 1)
    values = [np.atleast_1d(np.asarray(group, np.float64)) for group in groups]
    if not values or any(not group.size for group in values):
        raise InputError("There must be at least one subject, each with at least one value.")
    if not all(np.isfinite(group).all() for group in values):
        raise InputError("Some values are not finite.")
    return values


def finite(values: Sequence[float] | np.ndarray, what: str) -> np.ndarray:
    """The values as a float64 array.

    Raises:
        InputError: NaN, infinities, no values, or something that is not a number.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"The {what} must be numbers: {error}.") from error
    if not array.size:
        raise InputError(f"There are no {what} to work with.")
    if not np.isfinite(array).all():
        raise InputError(f"{np.sum(~np.isfinite(array))} of {array.size} {what} are not finite.")
    return array
