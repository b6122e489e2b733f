"""Intervals, paired tests and null controls."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from recast_probe.errors import InputError


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
    """The values as a float64 array. Raises InputError for NaN, infinities or no values."""
    array = np.asarray(values, dtype=np.float64)
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
    """Mean with its bias-corrected, accelerated bootstrap interval (scipy).

    With fewer than two values the ends are NaN, with a warning.

    Raises:
        InputError: no values, or values that are not finite; a confidence outside (0, 1); no draws.
    """
    _check(confidence, draws)
    array = finite(values, "values")
    if array.ndim != 1:
        raise InputError(f"Expected a list of values, got shape {array.shape}.")
    mean = float(array.mean())
    if len(array) < 2:
        warnings.warn("One value has no confidence interval; its ends are NaN.", stacklevel=2)
        return Interval(mean, np.nan, np.nan, confidence, len(array))
    if np.ptp(array) == 0:
        return Interval(mean, mean, mean, confidence, len(array))
    found = stats.bootstrap(
        (array,),
        np.mean,
        confidence_level=confidence,
        n_resamples=draws,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
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
    otherwise at random. NaN for fewer than two pairs, with a warning.

    Raises:
        InputError: different lengths, and as `bootstrap_mean`.
    """
    _check(confidence, draws)
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


def toroidal_shifts(mask: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """The mask moved around its own edges: a null that keeps its shape and size.

    Args:
        mask: bool (rows, columns).
        draws: shifts drawn without repetition; all of them when there are no more.

    Returns:
        bool (shifts, rows, columns); the unmoved mask is not among them.

    Raises:
        InputError: a mask that is not two-dimensional, or fewer than 0 draws.
    """
    if mask.ndim != 2 or draws < 0:
        raise InputError(
            f"Shifts need a mask (rows, columns) and 0 draws or more, got shape {mask.shape} and "
            f"{draws} draws."
        )
    count = min(draws, mask.size - 1)
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


def _check(confidence: float, draws: int) -> None:
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, got {confidence}.")
    if draws < 1:
        raise InputError(f"At least 1 draw is needed, got {draws}.")
