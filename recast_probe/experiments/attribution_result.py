"""Effects of cut blocks and heads: how they are estimated, and what they go together with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from recast_probe.diagnostics import difference_interval, reading, spearman_interval
from recast_probe.diagnostics.intervals import FEWEST_EQUAL
from recast_probe.diagnostics.results import Result, Words
from recast_probe.errors import InputError

if TYPE_CHECKING:
    from recast_probe.profiles.profile import AttentionProfile

CONFIDENCE = 0.95
Shape = tuple[list[int], list[int]]


@dataclass(frozen=True, repr=False)
class Attribution(Result):
    """What each block or head does to the image.

    Attributes:
        data: (block) or (block, head): effect, the loss of the metric when it is cut (NaN without a
            metric), and distance, the relative distance of the final latents from the full run's;
            both with _low and _high, the ends of a 95 % interval, NaN where there is none; and
            runs, in how many it was cut.
        over: "block" or "head".
        metric: its name, or "".
        edge: from group and to group.
        sampled: number of draws; None where every effect was measured by itself.
        full: the metric of the full run, mean over seeds.
        selection: what was done.

    Examples:
        >>> data = xr.Dataset({"distance": ("block", [0.1, 0.4, 0.2])}, {"block": [0, 1, 2]})
        >>> edge = ("reference", "generation")
        >>> found = Attribution(data, "block", "", edge, None, np.nan, "3 blocks")
        >>> found.top(2)
        [(1,), (2,)]
    """

    name: ClassVar[str] = "attribution"
    title: ClassVar[str] = "What does each block or head do?"
    words: ClassVar[Words] = {
        "full": ("Metric of the full run", "Mean over seeds."),
        "largest_distance": ("Largest distance", "Of the final latents from the full run's."),
        "largest_effect": ("Largest loss", "Of the metric, when one is cut."),
    }

    data: xr.Dataset
    over: str
    metric: str
    edge: tuple[str, str]
    sampled: int | None
    full: float
    selection: str

    def summary(self) -> dict[str, float]:
        found = {"full": self.full, "largest_distance": float(self.data["distance"].max())}
        if self.metric:
            found["largest_effect"] = float(self.data["effect"].max())
        return found

    def top(self, count: int = 1, by: str = "distance") -> list[tuple[int, ...]]:
        """The blocks, or (block, head), with the largest values.

        Args:
            by: "distance" or "effect".

        Raises:
            InputError: values that were not measured.
        """
        values = self.data[by]
        if bool(np.isnan(values).any()):
            raise InputError(f"Not every {self.over} has a value of {by}.")
        order = np.argsort(-values.values.ravel(), kind="stable")[:count]
        places = np.unravel_index(order, values.shape)
        named = zip(values.dims, places, strict=True)
        labels = [values[name].values[place].tolist() for name, place in named]
        return list(zip(*labels, strict=True))

    def relate(self, profile: AttentionProfile, fraction: float = 0.25) -> pd.DataFrame:
        """Do blocks or heads that read in a certain way matter more?

        Args:
            profile: of the same model and reference; it holds all blocks and heads of the result.
            fraction: top share of tokens.

        Returns:
            One row for each measured value and each feature of ``reading``: spearman with low and
            high, over blocks or heads, and count, the blocks: heads of one are not independent.
        """
        features = reading(profile, fraction)
        if self.over == "block":
            features = features.mean("head")
        return related(self.data, features)

    def __repr__(self) -> str:
        names = [" head ".join(map(str, place)) for place in self.top(3)]
        return f"Attribution(largest: {self.over} {', '.join(names)}; {self.selection})"


def related(effects: xr.Dataset, features: xr.Dataset) -> pd.DataFrame:
    """Spearman correlations of every effect with every feature, with `spearman_interval`.

    Heads of one block are not independent samples: blocks are left out whole.

    Args:
        effects: effect and distance, (block) or (block, head).
        features: of the same blocks and heads at least; undefined ones are left out in pairs.

    Raises:
        InputError: blocks or heads that the features lack.

    Examples:
        >>> measured = ("block", np.arange(5.0))
        >>> effects = xr.Dataset({"effect": measured, "distance": measured}, {"block": range(5)})
        >>> features = xr.Dataset({"mass": ("block", np.arange(5.0) ** 2)}, {"block": range(5)})
        >>> related(effects, features)["spearman"].round(3).tolist()
        [1.0, 1.0]
    """
    rows = []
    for value in ("effect", "distance"):
        measured = effects[value]
        if bool(np.isnan(measured).all()):
            continue
        for name in features:
            try:
                feature = features[name].sel({each: effects[each] for each in measured.dims})
            except KeyError as error:
                raise InputError(
                    f"The profile lacks some of these blocks or heads: {error}."
                ) from None
            a, b = measured.values.ravel(), feature.transpose(*measured.dims).values.ravel()
            known = ~np.isnan(a) & ~np.isnan(b)
            block = measured["block"].broadcast_like(measured).transpose(*measured.dims)
            found = spearman_interval(a[known], b[known], block.values.ravel()[known])
            rows.append(
                {
                    "value": value,
                    "feature": str(name),
                    "spearman": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "count": found.count,
                }
            )
    return pd.DataFrame(rows)


def exact_effects(
    full: np.ndarray, value: np.ndarray, distance: np.ndarray, members: np.ndarray, shape: Shape
) -> xr.Dataset:
    """Each site was cut by itself. Intervals are `difference_interval` over seeds.

    Args:
        full: (seed,), the metric of the full runs.
        value, distance: (seed, cut).
        members: bool (cut, site), one site a cut.
        shape: labels of blocks and heads; no heads for whole blocks.

    Examples:
        >>> value, distance = np.array([[0.5, 0.75]]), np.array([[0.3, 0.1]])
        >>> alone = np.eye(2, dtype=bool)
        >>> found = exact_effects(np.array([1.0]), value, distance, alone, ([0, 1], []))
        >>> found["effect"].values
        array([0.5 , 0.25])
    """
    columns: dict[str, Any] = {}
    for name, values in (("effect", full[:, None] - value), ("distance", distance)):
        ends = np.full((2, values.shape[1]), np.nan)
        if len(values) > 1 and np.isfinite(values).all():
            found = [
                difference_interval(list(column), confidence=CONFIDENCE) for column in values.T
            ]
            ends = np.array([[each.low for each in found], [each.high for each in found]])
        columns |= {name: values.mean(0), f"{name}_low": ends[0], f"{name}_high": ends[1]}
    columns["runs"] = np.full(members.shape[1], len(full))
    return _labelled(columns, shape)


def sampled_effects(
    full: np.ndarray, value: np.ndarray, distance: np.ndarray, members: np.ndarray, shape: Shape
) -> xr.Dataset:
    """Several sites were cut in every run: the difference between runs with and without one.

    Intervals are Welch's. A site that was cut, or left, in fewer than two draws has NaN.
    Arguments as in ``exact_effects``; with several seeds, values are averaged over them first.
    """
    columns: dict[str, list[float]] = {}
    for name, values in (("effect", -value.mean(0)), ("distance", distance.mean(0))):
        found = [_difference(values[cut], values[~cut]) for cut in members.T]
        for part, suffix in enumerate(("", "_low", "_high")):
            columns[f"{name}{suffix}"] = [each[part] for each in found]
    columns["runs"] = (members.sum(0) * len(full)).tolist()
    return _labelled(columns, shape)


def _difference(cut: np.ndarray, left: np.ndarray) -> tuple[float, float, float]:
    if len(cut) < 2 or len(left) < 2 or np.isnan([*cut, *left]).any():
        return np.nan, np.nan, np.nan
    mean = float(cut.mean() - left.mean())
    parts = [each.var(ddof=1) / len(each) for each in (cut, left)]
    variance = sum(parts)
    if variance == 0:  # a few equal values show no spread
        known = len(cut) + len(left) >= FEWEST_EQUAL
        return (mean, mean, mean) if known else (mean, np.nan, np.nan)
    freedom = variance**2 / sum(
        part**2 / (len(each) - 1) for part, each in zip(parts, (cut, left), strict=True)
    )
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * variance**0.5)
    return mean, mean - half, mean + half


def _labelled(columns: dict, shape: Shape) -> xr.Dataset:
    dimensions = ("block", "head") if shape[1] else ("block",)
    labels = dict(zip(dimensions, shape, strict=False))
    size = [len(labels[name]) for name in dimensions]
    return xr.Dataset(
        {name: (dimensions, np.reshape(values, size)) for name, values in columns.items()},
        coords=labels,
    )
