"""Which place of the reference each place of the generation looks at: a field of arrows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from recast_probe.diagnostics import arrays
from recast_probe.diagnostics.results import Result, Words
from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.profiles.maps import AttentionMaps


@dataclass(frozen=True, repr=False)
class Correspondence(Result):
    """One reference place for every chosen generation token.

    Places are (y, x) of a token's centre as fractions of the image's height and width, so that a
    generation and a reference of different size compare.

    Attributes:
        place: (query, axis), where each generation token is.
        best: (query,), the reference token that it looks at most.
        best_place: (query, axis), where that is.
        expected_place: (query, axis), the mean place, weighted by attention.
        peak: (query,), share of the token's reference attention on the best token, 0..1.
        entropy: (query,), bits, of its attention over the reference.
        mass: (query,), fraction of its attention that goes to the reference.
        generation, reference: the two grids.
        selection: what was averaged.

    Examples:
        >>> from PIL import Image
        >>> from recast_probe.testing.tiny import build_tiny_pipeline
        >>> probe = rp.Probe(build_tiny_pipeline())
        >>> image = Image.new("RGB", (64, 64))
        >>> maps = probe.attention_maps(image, "a fox", steps=2, progress=False)
        >>> rp.correspondence(maps).displacement.dims
        ('query', 'axis')
    """

    name: ClassVar[str] = "correspondence"
    title: ClassVar[str] = "Where does each place look?"
    words: ClassVar[Words] = {
        "queries": ("Generation tokens", "Those looked at.", "tokens"),
        "mean_distance": (
            "Mean distance",
            "From a token's own place to the one it looks at, in sides of the image.",
        ),
        "same_place": ("Look at their own place", "Share of the tokens."),
        "different_best_tokens": ("Reference tokens looked at", "Some token's best.", "tokens"),
        "mean_peak": ("Attention on the best token", "Share of a token's reference attention."),
        "mean_entropy": ("Entropy of one position", "Mean over the tokens.", "bits"),
    }

    place: xr.DataArray
    best: xr.DataArray
    best_place: xr.DataArray
    expected_place: xr.DataArray
    peak: xr.DataArray
    entropy: xr.DataArray
    mass: xr.DataArray
    generation: Grid
    reference: Grid
    selection: str

    @property
    def displacement(self) -> xr.DataArray:
        """(query, axis), from each token's own place to that of its best reference token."""
        return self.best_place - self.place

    def summary(self) -> dict[str, float]:
        distance = np.sqrt((self.displacement**2).sum("axis"))
        return {
            "queries": self.best.size,
            "mean_distance": float(distance.mean()),
            "same_place": float((distance < 0.5 / max(self._sides())).mean()),
            "different_best_tokens": len(np.unique(self.best)),
            "mean_peak": float(self.peak.mean()),
            "mean_entropy": float(self.entropy.mean()),
        }

    def _sides(self) -> tuple[int, ...]:
        return (
            self.generation.rows,
            self.generation.columns,
            self.reference.rows,
            self.reference.columns,
        )

    def __repr__(self) -> str:
        found = self.summary()
        return (
            f"Correspondence({found['queries']} tokens, {found['same_place']:.0%} look at their "
            f"own place, mean distance {found['mean_distance']:.2f}; {self.selection})"
        )


def correspondence(maps: AttentionMaps, reference: int = 0, **labels: Any) -> Correspondence:
    """The vector field of attention: for each query its best and its expected reference place.

    Args:
        maps: of generation tokens.
        reference: which of several reference images; the others are left out of account.
        labels: step=, block= or head=, to take these alone; see ``AttentionMaps.mean``.

    Raises:
        InputError: maps of other tokens, of tokens without places, pruned tokens, no attention to
            the reference, or something that was not recorded.

    Examples:
        >>> from PIL import Image
        >>> from recast_probe.testing.tiny import build_tiny_pipeline
        >>> probe = rp.Probe(build_tiny_pipeline())
        >>> image = Image.new("RGB", (64, 64))
        >>> maps = probe.attention_maps(image, "a fox", steps=2, progress=False)
        >>> correspondence(maps).best.shape
        (16,)
    """
    layout = maps.layout
    if maps.queries != "generation":
        raise InputError(f"Correspondence is of generation tokens, not of {maps.queries}.")
    if not 0 <= reference < len(layout.references):
        raise InputError(f"reference is {reference}; the run has {len(layout.references)}.")
    grid = layout.references[reference]
    if not grid.placed:
        raise InputError("These reference tokens have no places in the image.")
    mean = maps.mean(**labels)
    mean = mean.isel(token=np.flatnonzero(mean["reference"].values == reference))
    values = mean.values
    if np.isnan(values).any():
        raise InputError(
            "Some reference tokens were pruned in the selected steps; take steps with all of them."
        )
    mass = values.sum(-1)
    if not (mass > 0).all():
        raise InputError("Some of these tokens pay the reference no attention at all.")
    share = values / mass[:, None]
    centres = _centres(mean["row"].values, mean["column"].values, grid)
    own = _centres(mean["query_row"].values, mean["query_column"].values, layout.generation)
    best = share.argmax(-1)

    def labelled(array: np.ndarray, name: str) -> xr.DataArray:
        axes = ("query", "axis")[: array.ndim]
        coordinates = {"query": mean["query"].values, "axis": ["y", "x"]}
        return xr.DataArray(
            array, dims=axes, coords={axis: coordinates[axis] for axis in axes}, name=name
        )

    chosen = "".join(f", {name} {value}" for name, value in labels.items())
    return Correspondence(
        place=labelled(own, "place"),
        best=labelled(mean["token"].values[best], "best"),
        best_place=labelled(centres[best], "best_place"),
        expected_place=labelled(share @ centres, "expected_place"),
        peak=labelled(share.max(-1), "peak"),
        entropy=labelled(arrays.entropy_bits(share), "entropy"),
        mass=labelled(mass, "mass"),
        generation=layout.generation,
        reference=grid,
        selection=f"{maps.selection}{chosen}",
    )


def _centres(row: np.ndarray, column: np.ndarray, grid: Grid) -> np.ndarray:
    return np.stack([(row + 0.5) / grid.rows, (column + 0.5) / grid.columns], axis=-1)
