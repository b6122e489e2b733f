"""Many profiles at once, of which only one is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from recast_probe.diagnostics import arrays
from recast_probe.diagnostics.results import (
    Result,
    Scores,
    Words,
    checked_fraction,
    checked_scores,
    head_mean,
    selection_text,
)
from recast_probe.diagnostics.stability import Stability, check_comparable, compare, tokens_of
from recast_probe.errors import InputError

OF_MEAN = "Of the score averaged over steps, blocks and heads; mean over profiles."


@dataclass(frozen=True, repr=False)
class Survey(Result):
    """What `skew`, `entropy` and `stability` say of many profiles.

    Attributes:
        top_share, gini, marginal: (profile, step, block), of the score averaged over heads: share
            of the mass on the top tokens, Gini coefficient, entropy in bits.
        mean_top_share, mean_gini, mean_marginal: (profile,), of the score averaged over steps,
            blocks and heads (Eq. 3).
        stability: agreement of those mean scores between the profiles.
        block_spearman: (block,), Spearman correlation of the score averaged over steps and heads,
            mean over the pairs of profiles; NaN where a profile's scores are all equal.
        selection: what was averaged.

    Examples:
        >>> values = [1, 2, 3], [1, 3, 2], [2, 1, 3]
        >>> rp.survey([xr.DataArray(each, dims="token") for each in values]).summary()["profiles"]
        3.0
    """

    name: ClassVar[str] = "survey"
    title: ClassVar[str] = "What do many profiles say?"
    words: ClassVar[Words] = {
        "profiles": ("Profiles", "How many."),
        "top_share_of_mean_score": ("Attention on the top tokens", OF_MEAN),
        "gini_of_mean_score": ("Gini", OF_MEAN),
        "marginal_entropy_of_mean_score": ("Entropy", OF_MEAN, "bits"),
        **Stability.words,
    }

    top_share: xr.DataArray
    gini: xr.DataArray
    marginal: xr.DataArray
    mean_top_share: xr.DataArray
    mean_gini: xr.DataArray
    mean_marginal: xr.DataArray
    stability: Stability
    block_spearman: xr.DataArray
    selection: str

    def summary(self) -> dict[str, float]:
        return {
            "profiles": float(self.top_share.sizes["profile"]),
            "top_share_of_mean_score": float(self.mean_top_share.mean()),
            "gini_of_mean_score": float(self.mean_gini.mean()),
            "marginal_entropy_of_mean_score": float(self.mean_marginal.mean()),
            **self.stability.summary(),
        }

    def __repr__(self) -> str:
        count = self.top_share.sizes["profile"]
        return f"Survey({count} profiles, {self.stability!r})"


def survey(
    profiles: Iterable[Scores], labels: Sequence[str] | None = None, fraction: float = 0.25
) -> Survey:
    """Skew, entropy and agreement of many profiles.

    Args:
        profiles: any iterable of profiles or arrays of scores, such as
            ``(AttentionProfile.load(path).sel(blocks="single") for path in paths)``: each is
            released before the next is read. Kept for each are 8 bytes per block and reference
            token, and three numbers per step and block.
        labels: a name for each; its number by default.
        fraction: the top share of tokens, above 0 and up to 1.

    Raises:
        InputError: fewer than two profiles, another number of labels, or profiles that cannot be
            compared; see `stability`.

    Examples:
        >>> values = [1, 2, 3, 4], [1, 3, 2, 4], [2, 1, 3, 4]
        >>> profiles = (xr.DataArray(each, dims="token") for each in values)
        >>> survey(profiles).mean_top_share.values
        array([0.4, 0.4, 0.4])
    """
    fraction = checked_fraction(fraction)
    per_row: dict[str, list[np.ndarray]] = {"top_share": [], "gini": [], "marginal": []}
    per_block: list[np.ndarray] = []
    first: tuple[str, str] | None = None
    places: dict[str, Any] = {}
    for profile in profiles:
        score = checked_scores(profile)
        tokens, text = tokens_of(profile), selection_text(profile)
        if first is None:
            first = tokens, text
            places = {name: score[name].values for name in ("step", "block")}
        check_comparable([first[0], tokens], [first[1], text])
        by_block = head_mean(score)
        per_row["top_share"].append(arrays.top_share(by_block, fraction))
        per_row["gini"].append(arrays.gini(by_block))
        per_row["marginal"].append(arrays.entropy_bits(by_block))
        per_block.append(by_block.mean(0, dtype=np.float64))
    if first is None or len(per_block) < 2:
        raise InputError(f"A survey compares at least 2 profiles, got {len(per_block)}.")
    names = [str(i) for i in range(len(per_block))] if labels is None else list(map(str, labels))
    if len(names) != len(per_block):
        raise InputError(f"{len(per_block)} profiles need as many labels, got {len(names)}.")
    places["profile"] = names
    means = np.stack([each.mean(0) for each in per_block])
    of_mean = {
        "mean_top_share": arrays.top_share(means, fraction),
        "mean_gini": arrays.gini(means),
        "mean_marginal": arrays.entropy_bits(means),
    }
    return Survey(
        **{name: _labelled(np.stack(each), name, places) for name, each in per_row.items()},
        **{name: _labelled(each, name, places) for name, each in of_mean.items()},
        stability=compare(means, names, fraction, first[1]),
        block_spearman=xr.DataArray(
            [_mean_spearman(np.stack(rows)) for rows in zip(*per_block, strict=True)],
            dims="block",
            coords={"block": places["block"]},
            name="block_spearman",
        ),
        selection=first[1],
    )


def _mean_spearman(scores: np.ndarray) -> float:
    """Mean correlation over the pairs of different rows (profile, token)."""
    matrix = arrays.spearman_matrix(scores)
    return float(matrix[np.triu_indices(len(scores), 1)].mean())


def _labelled(values: np.ndarray, name: str, places: dict[str, Any]) -> xr.DataArray:
    dimensions = ("profile", "step", "block")[: values.ndim]
    labels = {dimension: places[dimension] for dimension in dimensions}
    return xr.DataArray(values, dims=dimensions, coords=labels, name=name)
