"""Intervals, paired tests and null controls."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from recast_probe.checks import whole_number
from recast_probe.errors import InputError

# spread below this part of the largest value is rounding
ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval over `count` samples; NaN ends where none is possible."""

    mean: float
    low: float
    high: float
    confidence: float
    count: int

    def to_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a - b over pairs, with interval and two-sided sign-flip permutation p-value."""

    interval: Interval
    p_value: float


def finite(values: Sequence[float] | np.ndarray, what: str) -> np.ndarray:
    """The values as a float64 array.

    Raises:
        InputError: NaN, infinities, no values, or something that is no number.
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


def bootstrap_mean(
    values: Sequence[float] | np.ndarray,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean with its bias-corrected, accelerated bootstrap interval (scipy; Efron 1987).

    Few values make it too narrow: resampling sees (n - 1) / n of the variance, and its quantiles
    are those of a normal distribution rather than of Student's t. Of normal values, a 95 % interval
    holds the true mean in 85 % of all samples of 5, 90 % of 10, 93 % of 20 and 94 % of 40.

    With fewer than two values, or too few draws for an interval, the ends are NaN, with a warning.

    Raises:
        InputError: no values, or values that are not finite; a confidence outside (0, 1); no
            draws; a negative seed.
    """
    draws, seed = _check(confidence, draws, seed)
    array = finite(values, "values")
    if array.ndim != 1:
        raise InputError(f"Expected a list of values, got shape {array.shape}.")
    mean = float(array.mean())
    if len(array) < 2:
        warnings.warn("One value has no confidence interval; its ends are NaN.", stacklevel=2)
        return Interval(mean, np.nan, np.nan, confidence, len(array))
    if np.ptp(array) <= ROUNDING * np.abs(array).max():
        return Interval(mean, mean, mean, confidence, len(array))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # scipy's own about NaN, which is reported below
        found = stats.bootstrap(
            (array,),
            np.mean,
            confidence_level=confidence,
            n_resamples=draws,
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    if np.isnan(found.low) or np.isnan(found.high):
        warnings.warn(
            f"{draws} draws of these values give no interval; its ends are NaN.", stacklevel=2
        )
    return Interval(mean, float(found.low), float(found.high), confidence, len(array))


def paired_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    confidence: float = 0.95,
    draws: int = 9999,
    seed: int = 0,
) -> PairedDifference:
    """Is `first` above `second`, pair by pair?

    The p-value flips the signs of the differences: all ways when there are at most `draws`,
    otherwise at random. NaN for fewer than two pairs, with a warning. The interval is that of
    `bootstrap_mean`, with its own number of draws.

    Raises:
        InputError: different lengths, and as `bootstrap_mean`.
    """
    draws, seed = _check(confidence, draws, seed)
    a, b = finite(first, "values"), finite(second, "values")
    if a.shape != b.shape:
        raise InputError(f"Pairs need equal lengths, got {a.shape} and {b.shape}.")
    difference = a - b
    interval = bootstrap_mean(difference, confidence, seed=seed)
    if len(difference) < 2:
        return PairedDifference(interval, np.nan)
    test = stats.permutation_test(
        (difference,),
        np.mean,
        permutation_type="samples",
        n_resamples=draws,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return PairedDifference(interval, float(test.pvalue))


def mean_of_pairs(
    matrix: np.ndarray, confidence: float = 0.95, draws: int = 2000, seed: int = 0
) -> Interval:
    """Mean over the pairs of a symmetric matrix (samples, samples), with a percentile interval.

    The bootstrap draws samples, not pairs, which share samples and are not independent; a sample
    drawn twice is not paired with itself. The ends are NaN below three samples.
    """
    draws, seed = _check(confidence, draws, seed)
    count = len(matrix)
    first, second = np.triu_indices(count, 1)
    mean = float(matrix[first, second].mean())
    if count < 3 or np.isnan(mean):
        return Interval(mean, np.nan, np.nan, confidence, count)
    picks = np.random.default_rng(seed).integers(count, size=(draws, count))
    a, b = picks[:, first], picks[:, second]
    different = a != b
    pairs = different.sum(-1)
    sums = (matrix[a, b] * different).sum(-1)
    means = sums[pairs > 0] / pairs[pairs > 0]
    if not len(means):  # one draw or so, of the same sample again and again
        return Interval(mean, np.nan, np.nan, confidence, count)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean, float(low), float(high), confidence, count)


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
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or not mask.size:
        raise InputError(f"Shifts need a mask (rows, columns), got shape {mask.shape}.")
    count = min(whole_number("draws", draws, 0), mask.size - 1)
    seed = whole_number("seed", seed, 0)
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


def _check(confidence: float, draws: int, seed: int) -> tuple[int, int]:
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, got {confidence}.")
    return whole_number("draws", draws, 1), whole_number("seed", seed, 0)
