"""Do rankings agree: across prompts, seeds, steps, blocks and heads (Section 3.4)?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from recast_probe.diagnostics import arrays
from recast_probe.diagnostics.intervals import Interval
from recast_probe.diagnostics.jackknife import mean_of_pairs
from recast_probe.diagnostics.results import Result, checked_fraction, checked_scores, mean_over
from recast_probe.errors import InputError
from recast_probe.profiles.profile import AttentionProfile, Indices

LIMITS = {
    "spearman": (-1, 1),
    "kendall": (-1, 1),
    "jaccard": (0, 1),
    "rank_biased_overlap": (0, 1),
}
MEASURES = tuple(LIMITS)


@dataclass(frozen=True, repr=False)
class Stability(Result):
    """Agreement between rankings, all pairs.

    Attributes:
        spearman, kendall, jaccard, rank_biased_overlap: (a, b) matrices; Jaccard of the top
            fraction, rank-biased overlap with a persistence of 1 - 1 / (tokens in it).
        mean_spearman, ...: mean over the pairs. The interval is the jackknife's over rankings, not
            pairs, which share rankings and are no independent samples; see `mean_of_pairs`. It
            cannot tell below three rankings. Steps, blocks and heads of one run (`stability_over`)
            are no independent samples either, and their interval is only a measure of spread.
        fraction: the top share of tokens.
        selection: what each ranking was averaged over.
    """

    spearman: xr.DataArray
    kendall: xr.DataArray
    jaccard: xr.DataArray
    rank_biased_overlap: xr.DataArray
    mean_spearman: Interval
    mean_kendall: Interval
    mean_jaccard: Interval
    mean_rank_biased_overlap: Interval
    fraction: float
    selection: str

    def summary(self) -> dict[str, float]:
        return {name: getattr(self, f"mean_{name}").mean for name in MEASURES}

    def __repr__(self) -> str:
        return (
            f"Stability({self.spearman.sizes['a']} rankings, Spearman {self.mean_spearman}; "
            f"{self.selection})"
        )


def stability(
    profiles: Sequence[AttentionProfile],
    labels: Sequence[str] | None = None,
    fraction: float = 0.25,
    *,
    blocks: Any = "all",
    steps: Indices = None,
    heads: Indices = None,
    branch: str = "conditional",
) -> Stability:
    """Agreement of the mean scores of several profiles, as of one reference and many prompts.

    Raises:
        InputError: fewer than two profiles, another number of labels, profiles of different
            reference grids, or profiles that recorded different parts of the selection.
    """
    if len(profiles) < 2:
        raise InputError(f"Stability compares at least 2 profiles, got {len(profiles)}.")
    texts = [profile.selection_text(blocks, steps, heads, branch) for profile in profiles]
    check_comparable(profiles, texts)
    names = [str(i) for i in range(len(profiles))] if labels is None else [str(x) for x in labels]
    if len(names) != len(profiles):
        raise InputError(f"{len(profiles)} profiles need as many labels, got {len(names)}.")
    scores = [
        mean_over(checked_scores(p, blocks, steps, heads, branch), "step", "block", "head")
        for p in profiles
    ]
    return compare(np.stack(scores), names, fraction, texts[0])


def check_comparable(profiles: Sequence[AttentionProfile], texts: Sequence[str]) -> None:
    """Check that profiles have one reference grid, and a selection one meaning.

    Args:
        texts: `selection_text` of each.

    Raises:
        InputError: they differ.
    """
    grids = {profile.layout.references for profile in profiles}
    if len(grids) > 1:
        raise InputError(
            "These profiles have different reference grids, so their tokens cannot be compared: "
            + "; ".join(sorted(", ".join(map(str, grid)) for grid in grids))
        )
    if len(set(texts)) > 1:
        found = "; ".join(sorted(set(texts)))
        raise InputError(
            f"The selection means different things in these profiles: {found}. "
            "Name steps, blocks and heads that all of them recorded."
        )


def stability_over(
    profile: AttentionProfile,
    dimension: Literal["step", "block", "head"],
    fraction: float = 0.25,
    *,
    blocks: Any = "all",
    steps: Indices = None,
    heads: Indices = None,
    branch: str = "conditional",
) -> Stability:
    """Agreement between the steps, blocks or heads of one profile.

    Raises:
        InputError: an unknown dimension, or fewer than two entries along it.
    """
    if dimension not in ("step", "block", "head"):
        raise InputError(f'dimension is "step", "block" or "head", not {dimension!r}.')
    score = checked_scores(profile, blocks, steps, heads, branch)
    if score.sizes[dimension] < 2:
        raise InputError(f"There is only one {dimension} selected; nothing to compare it with.")
    rest = [name for name in ("step", "block", "head") if name != dimension]
    names = [f"{dimension} {label}" for label in score[dimension].values]
    text = profile.selection_text(blocks, steps, heads, branch)
    return compare(mean_over(score, *rest), names, fraction, text)


def compare(scores: np.ndarray, names: list[str], fraction: float, selection: str) -> Stability:
    """Agreement of rankings by scores (ranking, token); see `Stability`."""
    fraction = checked_fraction(fraction)
    count = arrays.top_count(scores.shape[-1], fraction)
    constant = np.ptp(scores, axis=-1) == 0
    if constant.any():
        flat = ", ".join(name for name, each in zip(names, constant, strict=True) if each)
        warnings.warn(f"All scores are equal in {flat}: their agreement is NaN.", stacklevel=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's own warning about constant input
        matrices = {
            "spearman": arrays.spearman_matrix(scores),
            "kendall": arrays.kendall_matrix(scores),
            "jaccard": arrays.jaccard_matrix(scores, count),
            "rank_biased_overlap": arrays.rank_biased_overlap_matrix(scores, 1 - 1 / count),
        }
    found: dict[str, Any] = {}
    for name, matrix in matrices.items():
        matrix[constant, :] = matrix[:, constant] = np.nan
        found[name] = xr.DataArray(
            matrix, dims=("a", "b"), coords={"a": names, "b": names}, name=name
        )
    if len(names) < 3:
        warnings.warn("Two rankings make one pair: its interval's ends are NaN.", stacklevel=3)
    found |= {f"mean_{name}": mean_of_pairs(m, within=LIMITS[name]) for name, m in matrices.items()}
    return Stability(**found, fraction=fraction, selection=selection)
