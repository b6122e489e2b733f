"""Attention maps of single tokens: where each chosen query looks in the reference."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from recast_probe._utils.markup import html_table
from recast_probe.errors import InputError
from recast_probe.layout import TokenLayout


class AttentionMaps:
    """What chosen query tokens give every reference token.

    Attributes:
        data: float32 (step, block, head, query, token) or without the dimensions that were averaged
            over: fractions of the query's whole attention; NaN for tokens that were pruned.
            Coordinates: query and token (indices within their groups), query_row and query_column
            (-1 for text tokens), row, column and reference of each token. Attributes: queries (the
            group), selection, and layout and provenance as JSON.
    """

    DIMENSIONS = ("step", "block", "head", "query", "token")

    def __init__(self, data: xr.DataArray) -> None:
        kept = tuple(name for name in self.DIMENSIONS if name in data.dims)
        if data.dims != kept or kept[-2:] != ("query", "token"):
            raise InputError(
                f"Attention maps have some of {self.DIMENSIONS} in this order, not {data.dims}."
            )
        self.data = data

    @property
    def layout(self) -> TokenLayout:
        """Token positions of the run."""
        return TokenLayout.from_dict(json.loads(self.data.attrs["layout"]))

    @property
    def provenance(self) -> dict[str, Any]:
        """How the run was made."""
        return json.loads(self.data.attrs["provenance"])

    @property
    def queries(self) -> str:
        """The group that the queries are of."""
        return str(self.data.attrs["queries"])

    @property
    def selection(self) -> str:
        """What was recorded, in words."""
        return str(self.data.attrs["selection"])

    def mean(self, **labels: Any) -> xr.DataArray:
        """Mean map (query, token) in float64 over steps, blocks and heads.

        Args:
            labels: step=, block= or head=, a label or several, to take these alone.

        Raises:
            InputError: labels that were not recorded.
        """
        chosen = self.data
        for name, wanted in labels.items():
            if name not in chosen.dims or not np.isin(wanted, chosen[name]).all():
                raise InputError(f"{name}={wanted!r} is not in these maps: {self.selection}.")
            chosen = chosen.sel({name: np.atleast_1d(wanted)})
        rest = [name for name in chosen.dims if name not in ("query", "token")]
        return chosen.mean(rest, skipna=False, dtype=np.float64)

    def __repr__(self) -> str:
        sizes = self.data.sizes
        return (
            f"AttentionMaps({sizes['query']} {self.queries} tokens to {sizes['token']} reference "
            f"tokens; {self.selection})"
        )

    def _repr_html_(self) -> str:
        return html_table(repr(self))
