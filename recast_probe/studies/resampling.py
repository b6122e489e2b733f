"""Bootstrap and sign flips for values in pairs, several of them from each subject.

Prompts of one subject are not independent, so both resample whole subjects. Arrays are ragged:
one array of values for each subject.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats

from recast_probe.diagnostics.inference import Interval
from recast_probe.errors import InputError

CHUNK = 200  # draws at a time; bounds memory


def hierarchical_draws(
    counts: Sequence[int], draws: int, seed: int, within: bool = True
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Resamples of subjects and then of the values within each drawn subject.

    Args:
        counts: number of values of each subject.
        within: False takes the drawn subjects with all their values as they are.

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
        value = np.floor(rng.random((some, size, most)) * available).astype(int) if within else slot
        subject = np.broadcast_to(subject, (some, size, most))
        yield subject, np.minimum(value, available - 1), slot < available


def bootstrap(
    groups: Sequence[np.ndarray],
    *,
    confidence: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
    within: bool = True,
) -> Interval:
    """Mean of all values, with the percentile interval of a hierarchical bootstrap.

    Subjects are drawn with replacement, then values within each. Drawing within as well makes the
    interval a little wider than subjects alone would (`within=False`), which offsets the
    percentile method's want of width with few subjects. NaN ends for a single subject.

    Args:
        groups: one array of values for each subject.

    Raises:
        InputError: no values, values that are not finite, or settings out of range.
    """
    values = _checked(groups, confidence, draws)
    mean = float(np.concatenate(values).mean())
    if len(values) < 2:
        return Interval(mean, np.nan, np.nan, confidence, len(values))
    padded = _padded(values)
    found = [
        (padded[subject, value] * is_value).sum((1, 2)) / is_value.sum((1, 2))
        for subject, value, is_value in hierarchical_draws(
            [len(v) for v in values], draws, seed, within
        )
    ]
    return _interval(mean, np.concatenate(found), confidence, len(values))


def bootstrap_ratio(
    above: Sequence[np.ndarray],
    below: Sequence[np.ndarray],
    *,
    confidence: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
    within: bool = True,
) -> Interval:
    """Mean of `above` over mean of `below`, both drawn together, pair by pair.

    Raises:
        InputError: as `bootstrap`; groups that are no pairs; a mean of `below` of zero.
    """
    first, second = _checked(above, confidence, draws), _checked(below, confidence, draws)
    if [len(v) for v in first] != [len(v) for v in second]:
        raise InputError("A ratio of pairs needs as many values below as above for each subject.")
    base = float(np.concatenate(second).mean())
    if base == 0:
        raise InputError("The mean that is divided by is 0, so there is no ratio.")
    ratio = float(np.concatenate(first).mean()) / base
    if len(first) < 2:
        return Interval(ratio, np.nan, np.nan, confidence, len(first))
    top, bottom = _padded(first), _padded(second)
    found = [
        (top[subject, value] * is_value).sum((1, 2))
        / (bottom[subject, value] * is_value).sum((1, 2))
        for subject, value, is_value in hierarchical_draws(
            [len(v) for v in first], draws, seed, within
        )
    ]
    return _interval(ratio, np.concatenate(found), confidence, len(first))


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


def _interval(mean: float, found: np.ndarray, confidence: float, count: int) -> Interval:
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean, float(low), float(high), confidence, count)
