"""Attention maps of single tokens: where each chosen query looks in the reference."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from recast_probe._utils.markup import html_table
from recast_probe._utils.notebook_picture import maps_of, together
from recast_probe._utils.text_format import spans
from recast_probe.errors import InputError
from recast_probe.profiles.maps_file import BESIDE, DIMENSIONS, read_maps, write_maps
from recast_probe.profiles.profile import on_grids
from recast_probe.profiles.run_labels import RunLabels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class AttentionMaps(RunLabels):
    """What chosen query tokens give every reference token.

    Attributes:
        data: float32 (step, block, head, query, token) or without the dimensions that were averaged
            over: fractions of the query's whole attention; NaN for tokens that were pruned.
            Coordinates: query and token (indices within their groups), query_layer (layer of an
            image or frame of a video), query_row and query_column (-1 for all but generation
            tokens; within its layer, where the generation has several), row, column and reference
            of each token. Attributes: queries (the group), selection, and layout and
            provenance as JSON.
        shares: the same with key_group ("text", "generation", "reference") in place of token: how
            much of its attention each query gives each group. None where it was not recorded.
        text: the same with text_token in place of token: what each query gives each text token.
            None where it was not asked for.
    """

    DIMENSIONS = DIMENSIONS

    def __init__(
        self,
        data: xr.DataArray,
        shares: xr.DataArray | None = None,
        text: xr.DataArray | None = None,
    ) -> None:
        kept = tuple(name for name in self.DIMENSIONS if name in data.dims)
        if data.dims != kept or kept[-2:] != ("query", "token"):
            raise InputError(
                f"Attention maps have some of {self.DIMENSIONS} in this order, not {data.dims}."
            )
        for name, beside in (("shares", shares), ("text", text)):
            expected = (*kept[:-1], BESIDE[name])
            if beside is not None and (
                beside.dims != expected or beside.shape[:-1] != data.shape[:-1]
            ):
                raise InputError(
                    f"The {name} of attention maps have {expected}, not {beside.dims}."
                )
        self.data, self.shares, self.text = data, shares, text

    def mean(self, **labels: Any) -> xr.DataArray:
        """Mean map (query, token) in float64 over steps, blocks and heads.

        Args:
            labels: step=, block= or head=, a label or several, to take these alone.

        Raises:
            InputError: labels that were not recorded, or none.
        """
        alone = self._labels(labels, ("step", "block", "head"))
        chosen = self.data.sel(alone)
        rest = [name for name in chosen.dims if name not in ("query", "token")]
        return chosen.mean(rest, skipna=False, dtype=np.float64)

    def sel(self, **labels: Any) -> AttentionMaps:
        """The part of the maps that is named, as maps.

        Args:
            labels: step=, block=, head= or query=, a label or several.

        Raises:
            InputError: labels that were not recorded, or none.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> probe = rp.Probe(tiny.build_tiny_pipeline())
            >>> maps = probe.attention_maps(tiny.tiny_image(), "a cat", steps=2, progress=False)
            >>> maps.sel(block=[0, 2], query=5).data.shape
            (2, 2, 2, 1, 16)
        """
        chosen = self._labels(labels, ("step", "block", "head", "query"))
        said = "".join(f", of these {name} {spans(at.tolist())}" for name, at in chosen.items())
        data = self.data.sel(chosen).assign_attrs(selection=f"{self.selection}{said}")
        beside = [None if each is None else each.sel(chosen) for each in (self.shares, self.text)]
        return AttentionMaps(data, *beside)

    def _labels(self, labels: Mapping[str, Any], names: Sequence[str]) -> dict[str, np.ndarray]:
        """The labels that were asked for, each kind as an array.

        Raises:
            InputError: another kind, no label of one, or labels that were not recorded.
        """
        chosen = {}
        for name, wanted in labels.items():
            at = np.atleast_1d(wanted)
            if name not in names or name not in self.data.dims:
                raise InputError(f"{name}={wanted!r}: maps are chosen by {', '.join(names)}.")
            if at.ndim > 1 or not at.size:
                raise InputError(f"{name}={wanted!r} names no label; give one or several.")
            # True is no label, although it equals 1
            if at.dtype.kind not in "iu" or not np.isin(at, self.data[name]).all():
                raise InputError(f"{name}={wanted!r} is not in these maps: {self.selection}.")
            chosen[name] = at
        return chosen

    def save(self, path: str | Path) -> Path:
        """Write netCDF-4 (`.nc`) with a checksum, whole or not at all.

        Raises:
            InputError: the name does not end in .nc, or its folder does not exist.
            OSError: the disk is full or the place cannot be written; an earlier file stays.

        Examples:
            >>> import tempfile
            >>> from recast_probe.testing import tiny
            >>> probe = rp.Probe(tiny.build_tiny_pipeline())
            >>> maps = probe.attention_maps(tiny.tiny_image(), "a cat", steps=2, progress=False)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     AttentionMaps.load(maps.save(f"{folder}/maps.nc")).identical(maps)
            True
        """
        path = Path(path)
        if path.suffix != ".nc":
            raise InputError(f"Attention maps are saved as netCDF: {str(path)!r} must end in .nc.")
        if not path.parent.is_dir():
            raise InputError(f"The folder {str(path.parent)!r} does not exist; make it first.")
        return write_maps(path, self.data, {"shares": self.shares, "text": self.text})

    @classmethod
    def load(cls, path: str | Path) -> AttentionMaps:
        """Read maps that `save` wrote; see the example there.

        Raises:
            ProfileFileError: missing, damaged, foreign, or of a newer version.
        """
        data, beside = read_maps(path)
        return cls(data, **beside)

    def identical(self, other: AttentionMaps) -> bool:
        """Same values (NaN equals NaN), labels and attributes; see the example of `save`."""
        pairs = zip(self._arrays(), other._arrays(), strict=True)
        return all(
            one is None is two if one is None or two is None else one.identical(two)
            for one, two in pairs
        )

    def _arrays(self) -> Sequence[xr.DataArray | None]:
        return self.data, self.shares, self.text

    def plot(self, image: Any = None, *, query: int | None = None, reference: int = 0) -> Figure:
        """Where one query looks, or the mean of all; see ``figures.plot_attention_map``.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> probe = rp.Probe(tiny.build_tiny_pipeline())
            >>> maps = probe.attention_maps(tiny.tiny_image(), "a cat", steps=2, progress=False)
            >>> maps.plot(query=5).axes[0].get_title(loc="left")
            'Generation token 5 (row 1, column 1)'
        """
        # by name, as figures lie above profiles
        figures = importlib.import_module("recast_probe.figures")
        return figures.plot_attention_map(self, image, query=query, reference=reference)

    def __repr__(self) -> str:
        sizes = self.data.sizes
        return (
            f"AttentionMaps({sizes['query']} {self.queries} tokens to {sizes['token']} reference "
            f"tokens; {self.selection})"
        )

    def _repr_html_(self) -> str:
        rows = [("queries", self.queries), ("recorded", self.selection)]
        table = html_table(repr(self), rows)
        if not self.layout.placed:
            return table
        grids = on_grids(self.mean().mean("query", skipna=False), self.layout.references)
        return together(maps_of(grids, "mean of these queries"), table)
