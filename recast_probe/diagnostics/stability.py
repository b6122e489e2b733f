"""Do rankings agree: across prompts, seeds, steps, blocks and heads (Section 3.4)?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr

from recast_probe.diagnostics import arrays
from recast_probe.diagnostics.intervals import Interval
from recast_probe.diagnostics.jackknife import mean_of_pairs
from recast_probe.diagnostics.results import (
    Result,
    Scores,
    Words,
    checked_fraction,
    checked_scores,
    mean_over,
    scores_given,
    selection_text,
)
from recast_probe.errors import InputError
from recast_probe.profiles.profile import AttentionProfile

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
            fraction, rank-biased overlap (Webber et al. 2010) with a persistence of 1 - 1 / (tokens
            in it).
        mean_spearman, ...: mean over the pairs. The interval is the jackknife's over rankings, not
            pairs, which share rankings and are not independent samples; see `mean_of_pairs`. It
            cannot tell below three rankings. Steps, blocks and heads of one run (`stability_over`)
            are not independent samples either, and their interval is only a measure of spread.
        fraction: the top share of tokens.
        selection: what each ranking was averaged over.

    Examples:
        >>> values = [1, 2, 3], [1, 3, 2], [1, 2, 4]
        >>> rp.stability([xr.DataArray(each, dims="token") for each in values]).jaccard.shape
        (3, 3)
    """

    name: ClassVar[str] = "stability"
    title: ClassVar[str] = "Do the profiles agree?"
    highlights: ClassVar[tuple[str, ...]] = ("spearman",)
    words: ClassVar[Words] = {
        "spearman": (
            "Agreement of rankings (Spearman)",
            "1: the same order of tokens. 0: unrelated orders.",
        ),
        "kendall": (
            "Agreement of rankings (Kendall)",
            "1: every pair of tokens in the same order. 0: as many against as for.",
        ),
        "jaccard": (
            "Shared top tokens (Jaccard)",
            "Tokens in the top of both rankings, out of those in the top of either.",
        ),
        "rank_biased_overlap": (
            "Rank-biased overlap",
            "Agreement that counts the best ranks most; 1 is the same order.",
        ),
    }

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
    profiles: Sequence[Scores], labels: Sequence[str] | None = None, fraction: float = 0.25
) -> Stability:
    """Agreement of the mean scores of several profiles, as of one reference and many prompts.

    Args:
        profiles: or arrays of scores, (step, block, head, token), of which only token must be
            there. Select from each first: ``[p.sel(blocks="single") for p in profiles]``.
        labels: a name for each; its number by default.
        fraction: the top share of tokens, for Jaccard and rank-biased overlap.

    Raises:
        InputError: fewer than two profiles, another number of labels, profiles of different
            reference grids, or profiles of different selections.

    Examples:
        >>> values = [1, 2, 3], [1, 3, 2], [1, 2, 4]
        >>> rankings = [xr.DataArray(each, dims="token") for each in values]
        >>> found = stability(rankings, ["a fox", "a hen", "a fox again"])
        >>> found.spearman.sel(a="a fox").values.round(3)
        array([1. , 0.5, 1. ])
    """
    if isinstance(profiles, xr.DataArray) or not hasattr(profiles, "__len__"):
        raise InputError(
            f"Stability compares several profiles in one list, rp.stability([one, other]); this is "
            f"one {type(profiles).__name__}."
        )
    profiles = [scores_given(each) for each in profiles]
    if len(profiles) < 2:
        raise InputError(f"Stability compares at least 2 profiles, got {len(profiles)}.")
    scores = [mean_over(checked_scores(each), "step", "block", "head") for each in profiles]
    texts = [selection_text(each) for each in profiles]
    check_comparable([tokens_of(each) for each in profiles], texts)
    names = [str(i) for i in range(len(profiles))] if labels is None else [str(x) for x in labels]
    if len(names) != len(profiles):
        raise InputError(f"{len(profiles)} profiles need as many labels, got {len(names)}.")
    return compare(np.stack(scores), names, fraction, texts[0])


def tokens_of(scores: Scores) -> str:
    """The reference tokens in words: the grids of a profile, or how many an array has."""
    if isinstance(scores, AttentionProfile):
        return ", ".join(map(str, scores.layout.references))
    return f"{scores.sizes['token']} tokens"


def check_comparable(tokens: Sequence[str], texts: Sequence[str]) -> None:
    """Check that profiles have one reference grid, and a selection one meaning.

    Args:
        tokens: `tokens_of` each.
        texts: `selection_text` of each.

    Raises:
        InputError: they differ.
    """
    if len(set(tokens)) > 1:
        raise InputError(
            "These profiles have different reference grids, so their tokens cannot be compared: "
            + "; ".join(sorted(set(tokens)))
        )
    if len(set(texts)) > 1:
        found = "; ".join(sorted(set(texts)))
        raise InputError(
            f"The selection means different things in these profiles: {found}. "
            "Name steps, blocks and heads that all of them recorded."
        )


def stability_over(
    scores: Scores, dimension: Literal["step", "block", "head"], fraction: float = 0.25
) -> Stability:
    """Agreement between the steps, blocks or heads of one profile, or array of scores.

    Args:
        scores: a profile, or an array (step, block, head, token).
        dimension: what is compared; the other two are averaged.
        fraction: the top share of tokens, for Jaccard and rank-biased overlap.

    Raises:
        InputError: an unknown dimension, or fewer than two entries along it.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> profile = planted(np.arange(48.0).reshape(3, 1, 1, 16))
        >>> print(stability_over(profile, "step").mean_spearman)
        1.000 [cannot tell, n=3]
    """
    if dimension not in ("step", "block", "head"):
        raise InputError(f'dimension is "step", "block" or "head", not {dimension!r}.')
    score = checked_scores(scores)
    if score.sizes[dimension] < 2:
        raise InputError(f"There is only one {dimension} selected; nothing to compare it with.")
    rest = [name for name in ("step", "block", "head") if name != dimension]
    names = [f"{dimension} {label}" for label in score[dimension].values]
    return compare(mean_over(score, *rest), names, fraction, selection_text(scores))


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
