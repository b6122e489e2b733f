"""Tests and intervals of paired values, and the null of shifted masks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from recast_probe._utils.checks import check_int
from recast_probe.diagnostics.intervals import (
    Interval,
    checked_groups,
    difference_interval,
    finite,
    mean_interval,
)
from recast_probe.errors import InputError


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a - b over pairs, with interval and two-sided sign-flip p-value.

    Attributes:
        interval: of the mean difference, in the units of the values.
        p_value: 0..1, of `sign_flip_p_value`; NaN for a single subject.

    Examples:
        >>> found = rp.paired_difference([0.9, 0.8, 0.7], [0.5, 0.6, 0.4])
        >>> round(found.interval.mean, 3), found.p_value
        (0.3, 0.25)
    """

    interval: Interval
    p_value: float


def sign_flip_p_value(groups: Sequence[np.ndarray], *, draws: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value that there is no effect, flipping all signs of a subject at once.

    It assumes that without an effect a subject's difference is as likely to be d as -d: symmetric
    about 0. So it holds where two arms are exchangeable under the hypothesis, and rejects too often
    (7 to 10 % instead of 5 %) where differences are skewed and only their mean is 0.

    All sign patterns are tried when there are at most `draws`, otherwise random ones
    (``scipy.stats.permutation_test``); n subjects cannot give less than 2 / 2**n. NaN for a single
    subject.

    Args:
        groups: one array of differences for each subject.

    Raises:
        InputError: no values, or values that are not finite; no draws; a negative seed.

    Examples:
        >>> sign_flip_p_value([np.array([each]) for each in (0.4, 0.2, 0.3)])
        0.25
    """
    values = checked_groups(groups, draws=draws)
    seed = check_int("seed", seed, 0)
    if len(values) < 2:
        return np.nan
    test = stats.permutation_test(
        (np.array([group.sum() for group in values]),),
        np.sum,
        permutation_type="samples",
        n_resamples=draws,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def bootstrap_mean(
    values: Sequence[float] | np.ndarray,
    confidence: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
    within: tuple[float, float] | None = None,
) -> Interval:
    """`mean_interval` of independent values, one for each subject; a warning where it cannot tell.

    Args:
        values: (subjects,).
        confidence: level of the interval, 0..1.
        draws, seed: bootstrap resamples, and their seed; used without limits.
        within: the least and largest value that there can be, such as (0, 1).

    Raises:
        InputError: as `mean_interval`, and values that are not a list.

    Examples:
        >>> print(bootstrap_mean([0.8, 0.7, 0.9, 0.8, 0.6], within=(0, 1)))
        0.760 [0.413, 1.000, n=5]
    """
    found = mean_interval(
        _list(values), within=within, confidence=confidence, draws=draws, seed=seed
    )
    if found.cannot_tell:
        warnings.warn(f"There is no interval: {found.cannot_tell}.", stacklevel=2)
    return found


def paired_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    confidence: float = 0.95,
    draws: int = 9999,
    seed: int = 0,
    within: tuple[float, float] | None = None,
    subjects: Sequence[object] | None = None,
) -> PairedDifference:
    """Is `first` above `second`, pair by pair?

    Args:
        first, second: (pairs,), in the same order.
        confidence: level of the interval, 0..1.
        draws: sign patterns at most.
        within: the least and largest possible of either value; see `difference_interval`.
        subjects: which subject each pair is of; by default each pair is its own.

    Returns:
        The interval of `difference_interval` and the p-value of `sign_flip_p_value`, which is NaN
        for a single subject, with a warning.

    Raises:
        InputError: different lengths, and as those two.

    Examples:
        >>> found = paired_difference([0.9, 0.8, 0.7], [0.5, 0.6, 0.4], within=(0, 1))
        >>> print(found.interval)
        0.300 [0.052, 0.548, n=3]
    """
    a, b = (np.concatenate(_list(values)) for values in (first, second))
    if a.shape != b.shape:
        raise InputError(f"Pairs need equal lengths, got {a.shape} and {b.shape}.")
    groups = by_subject(a - b, range(len(a)) if subjects is None else subjects)
    interval = difference_interval(groups, within=within, confidence=confidence, seed=seed)
    if len(groups) < 2:
        warnings.warn("One subject has no interval and no p-value; they are NaN.", stacklevel=2)
    return PairedDifference(interval, sign_flip_p_value(groups, draws=draws, seed=seed))


def toroidal_shifts(mask: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """The mask moved around its own edges: a null that keeps its shape and size.

    Args:
        mask: bool (rows, columns).
        draws: shifts drawn without repetition; all of them when there are no more.

    Returns:
        bool (shifts, rows, columns); the unmoved mask is not among them.

    Raises:
        InputError: a mask that is not two-dimensional or empty, fewer than 0 draws, or a negative
            seed.

    Examples:
        >>> toroidal_shifts(np.array([[True, False, False]]), draws=99).shape
        (2, 1, 3)
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or not mask.size:
        raise InputError(f"Shifts need a mask (rows, columns), got shape {mask.shape}.")
    count = min(check_int("draws", draws, 0), mask.size - 1)
    seed = check_int("seed", seed, 0)
    return shifted(mask, 1 + np.random.default_rng(seed).permutation(mask.size - 1)[:count])


def shifted(mask: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The mask (rows, columns) moved so that its first token lies on each of the offsets.

    Returns:
        bool (offsets, rows, columns), wrapped around the edges.
    """
    rows, columns = mask.shape
    down, right = np.divmod(offsets, columns)
    row = (np.arange(rows)[None, :, None] - down[:, None, None]) % rows
    column = (np.arange(columns)[None, None, :] - right[:, None, None]) % columns
    return mask[row, column]


def by_subject(values: np.ndarray, subjects: Sequence[object]) -> list[np.ndarray]:
    """One array of values for each subject, in order of appearance.

    Raises:
        InputError: another number of subjects than of values.
    """
    named = list(subjects)
    if len(named) != len(values):
        raise InputError(f"{len(values)} values need as many subjects, got {len(named)}.")
    groups: dict[object, list[float]] = {}
    for subject, value in zip(named, values, strict=True):
        groups.setdefault(subject, []).append(float(value))
    return [np.array(group) for group in groups.values()]


def _list(values: Sequence[float] | np.ndarray) -> list[np.ndarray]:
    array = finite(values, "values")
    if array.ndim != 1:
        raise InputError(f"Expected a list of values, got shape {array.shape}.")
    return list(array[:, None])
