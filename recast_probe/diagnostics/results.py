"""What every diagnostic's result can do, and the checks that come before every diagnostic."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import xarray as xr

from recast_probe._utils.markup import html_table
from recast_probe.errors import InputError
from recast_probe.profiles.profile import AttentionProfile


class Result:
    """Base of the results: numbers for JSON and a small table for notebooks."""

    selection: str

    def summary(self) -> dict[str, float]:
        """The headline numbers."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        rows = [(name.replace("_", " "), f"{value:.4g}") for name, value in self.summary().items()]
        return html_table(f"{type(self).__name__}, {self.selection}", rows)


def checked_scores(
    profile: AttentionProfile, blocks: Any, steps: Any, heads: Any, branch: str
) -> xr.DataArray:
    """The selected scores (step, block, head, token), without NaN.

    Raises:
        InputError: tokens that were absent in a selected step, infinite scores, or scores below
            zero.
    """
    score = profile.select(blocks, steps, heads, branch)
    lowest, highest = float(score.min(skipna=False)), float(score.max(skipna=False))
    if np.isnan(lowest):
        raise InputError(
            "Some selected scores are NaN: tokens were pruned in those steps. Choose steps with "
            "the full reference through `steps=`."
        )
    if lowest < 0:
        raise InputError(f"Attention scores cannot be negative; the lowest is {lowest:.3g}.")
    if np.isinf(highest):
        raise InputError("Some selected scores are infinite; attention scores lie between 0 and 1.")
    return score


def checked_fraction(fraction: float) -> float:
    """A top share of tokens. Raises InputError outside (0, 1]."""
    if not 0 < fraction <= 1:
        raise InputError(f"fraction must lie above 0 and up to 1, got {fraction}.")
    return float(fraction)


def mean_over(values: xr.DataArray, *dimensions: str) -> np.ndarray:
    """Mean in float64 over the named dimensions, as a plain array; NaN if any part of it is."""
    return values.mean(dimensions, skipna=False, dtype=np.float64).values


def head_mean(score: xr.DataArray) -> np.ndarray:
    """Scores (step, block, token), averaged over heads in float64; of one head they are as stored,
    which is the same number and half the memory."""
    return score.values[:, :, 0] if score.sizes["head"] == 1 else mean_over(score, "head")


def labelled(values: np.ndarray, like: xr.DataArray, name: str, *dimensions: str) -> xr.DataArray:
    """Values with the labels that `like` has along the named dimensions."""
    rest: dict[Any, int] = {each: 0 for each in like.dims if each not in dimensions}
    return like.isel(rest, drop=True).copy(data=values).rename(name)


def warn_if_nan(values: np.ndarray | float, why: str) -> None:
    """A visible warning for an undefined result."""
    if np.isnan(values).any():
        warnings.warn(why, stacklevel=3)
