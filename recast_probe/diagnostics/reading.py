"""How a head or block reads the reference, beside what it does to the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from recast_probe.checks import whole_number
from recast_probe.diagnostics import arrays
from recast_probe.diagnostics.copying import head_information
from recast_probe.diagnostics.inference import Interval, finite
from recast_probe.diagnostics.results import checked_fraction, checked_scores
from recast_probe.errors import InputError
from recast_probe.profile import AttentionProfile, Indices


def reading(
    profile: AttentionProfile,
    fraction: float = 0.25,
    *,
    blocks: Any = "all",
    steps: Indices = None,
    heads: Indices = None,
    branch: str = "conditional",
) -> xr.Dataset:
    """Skew and entropy of every head, means over the steps.

    Returns:
        (block, head) each: mass (fraction of attention on the reference), top_share (of the top
        fraction of tokens, of the reference's mass), gini, marginal_entropy, conditional_entropy
        and information (bits). Take ``.mean("head")`` for blocks.

    Raises:
        InputError: scores that are NaN, or a fraction outside (0, 1].
    """
    count_fraction = checked_fraction(fraction)
    score = checked_scores(profile, blocks, steps, heads, branch)
    per_query = profile.select(blocks, steps, heads, branch, variable="conditional_entropy")
    values = {
        "mass": score.values.sum(-1, dtype=np.float64),
        "top_share": arrays.top_share(score.values, count_fraction),
        "gini": arrays.gini(score.values),
        "marginal_entropy": arrays.entropy_bits(score.values),
        "conditional_entropy": per_query.values.astype(np.float64),
    }
    means = {name: each.mean(0) for name, each in values.items()}
    means["information"] = head_information(profile, blocks, steps, heads, branch)
    labels = {"block": score["block"].values, "head": score["head"].values}
    return xr.Dataset(
        {name: (("block", "head"), each) for name, each in means.items()},
        coords=labels,
        attrs={"selection": profile.selection_text(blocks, steps, heads, branch)},
    )


def spearman_interval(
    first: np.ndarray,
    second: np.ndarray,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Spearman correlation of pairs with a percentile bootstrap interval that resamples pairs.

    Pairs are heads, say, and count as independent, which heads of one block are not quite. Draws in
    which one side is constant are left out. NaN ends below four pairs.

    Raises:
        InputError: different lengths, fewer than two pairs, values that are not finite.
    """
    a, b = finite(np.ravel(first), "values"), finite(np.ravel(second), "values")
    if a.shape != b.shape or len(a) < 2:
        raise InputError(f"A correlation needs two or more pairs, got {a.size} and {b.size}.")
    draws, seed = whole_number("draws", draws, 1), whole_number("seed", seed, 0)
    found = _spearman(a[None], b[None])[0]
    if len(a) < 4 or np.isnan(found):
        return Interval(float(found), np.nan, np.nan, confidence, len(a))
    picks = np.random.default_rng(seed).integers(len(a), size=(draws, len(a)))
    drawn = _spearman(a[picks], b[picks])
    ends = ((1 - confidence) / 2, (1 + confidence) / 2)
    low, high = np.nanquantile(drawn, ends) if not np.isnan(drawn).all() else (np.nan, np.nan)
    return Interval(float(found), float(low), float(high), confidence, len(a))


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Row by row; NaN for a constant row."""
    ranks = [stats.rankdata(each, axis=-1) for each in (a, b)]
    first, second = (each - each.mean(-1, keepdims=True) for each in ranks)
    length = np.sqrt((first**2).sum(-1) * (second**2).sum(-1))
    dot = (first * second).sum(-1)
    return np.divide(dot, length, out=np.full(dot.shape, np.nan), where=length > 0)
