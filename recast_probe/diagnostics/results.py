"""What every diagnostic's result can do, and the check that comes before every diagnostic."""

from __future__ import annotations

import html
import math
import warnings
from typing import Any

import numpy as np
import xarray as xr

from recast_probe.errors import InputError
from recast_probe.profile import AttentionProfile


class Result:
    """Base of the results: numbers for JSON and a small table for notebooks."""

    selection: str

    def summary(self) -> dict[str, float]:
        """The headline numbers."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td style='text-align:left'>{html.escape(name.replace('_', ' '))}</td>"
            f"<td>{value:.4g}</td></tr>"
            for name, value in self.summary().items()
        )
        title = f"<b>{type(self).__name__}</b>, {html.escape(self.selection)}"
        return f"<div>{title}<table>{rows}</table></div>"


def checked_scores(
    profile: AttentionProfile, blocks: Any, steps: Any, heads: Any, branch: str
) -> xr.DataArray:
    """The selected scores (step, block, head, token), without NaN.

    Raises:
        InputError: tokens that were absent in a selected step, or scores below zero.
    """
    score = profile.select(blocks, steps, heads, branch)
    lowest = float(score.min(skipna=False))
    if math.isnan(lowest):
        raise InputError(
            "Some selected scores are NaN: tokens were pruned in those steps. Choose steps with "
            "the full reference through `steps=`."
        )
    if lowest < 0:
        raise InputError(f"Attention scores cannot be negative; the lowest is {lowest:.3g}.")
    return score


def mean_over(score: xr.DataArray, *dimensions: str) -> np.ndarray:
    """Mean in float64 over the named dimensions, as a plain array."""
    return score.mean(dimensions, dtype=np.float64).values


def warn_if_nan(values: np.ndarray | float, why: str) -> None:
    """A visible warning for an undefined result."""
    if np.isnan(values).any():
        warnings.warn(why, stacklevel=3)
