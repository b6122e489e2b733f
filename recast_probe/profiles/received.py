"""How much attention every token of the sequence receives: text, generation and reference."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from recast_probe.errors import InputError
from recast_probe.layout import TokenLayout
from recast_probe.profiles.run_labels import RunLabels

DIMENSIONS = ("step", "block", "head", "token")
COORDINATES = ("group", "index", "part")


class ReceivedAttention(RunLabels):
    """What each key of the whole sequence gets from the queries of one token group, on average.

    A profile has this of reference tokens alone; here text and generation tokens have theirs too.

    Attributes:
        data: float32 (step, block, head, token): mean over the queries of the probability that each
            gives the token, in the conditional branch. It sums to 1 over the tokens, which stand in
            the order of the layout. NaN where a reference token was not there. Coordinates of a
            token: group ("text", "generation", "reference"), index within it, and part: the same,
            but for text "padding", "prompt" or "vision" where the pipeline can tell. Attributes:
            queries (the group), selection, and layout and provenance as JSON.

    Raises:
        InputError: other dimensions, or a layout of another number of tokens.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe = rp.Probe(tiny.build_tiny_pipeline())
        >>> found = rp.received_attention(probe, tiny.tiny_image(), "a cat", 2, progress=False)
        >>> found.data.dims, found.per_token().sizes["token"] == found.layout.total
        (('step', 'block', 'head', 'token'), True)
    """

    def __init__(self, data: xr.DataArray) -> None:
        if data.dims != DIMENSIONS or not {*COORDINATES} <= {*map(str, data.coords)}:
            raise InputError(
                f"Received attention has {DIMENSIONS} and the coordinates {COORDINATES}, not "
                f"{data.dims} and {(*data.coords,)}."
            )
        self.data = data
        if self.layout.total != data.sizes["token"]:
            raise InputError(
                f"The layout has {self.layout.total} tokens, but the attention "
                f"{data.sizes['token']}."
            )

    @classmethod
    def build(
        cls,
        values: np.ndarray,
        *,
        layout: TokenLayout,
        text_parts: np.ndarray | None = None,
        steps: list[int],
        blocks: list[int],
        heads: list[int],
        queries: str = "generation",
        selection: str = "",
        provenance: dict[str, Any] | None = None,
    ) -> ReceivedAttention:
        """Label values (step, block, head, token).

        Args:
            text_parts: the part of each text token; "text" for all where it is not known.

        Raises:
            InputError: shapes that do not fit.
        """
        groups = np.concatenate(
            [np.repeat(name, len(range(layout.total)[layout.span(name)])) for name in layout.groups]
        )
        index = np.concatenate(
            [np.arange(len(range(layout.total)[layout.span(name)])) for name in layout.groups]
        )
        part = groups.astype(object)
        if text_parts is not None:
            part[: layout.text] = text_parts
        try:
            data = xr.DataArray(
                np.asarray(values, np.float32),
                dims=DIMENSIONS,
                coords={
                    "step": np.asarray(steps, np.int64),
                    "block": np.asarray(blocks, np.int64),
                    "head": np.asarray(heads, np.int64),
                    "group": ("token", groups.astype(np.str_)),
                    "index": ("token", index),
                    "part": ("token", part.astype(np.str_)),
                },
                attrs={
                    "queries": queries,
                    "selection": selection,
                    "layout": json.dumps(layout.to_dict()),
                    "provenance": json.dumps(provenance or {}),
                },
                name="received",
            )
        except ValueError as error:
            raise InputError(f"These values make no received attention: {error}") from error
        return cls(data)

    def per_token(self) -> xr.DataArray:
        """Mean (token,) in float64 over steps, blocks and heads; NaN where a token was absent."""
        return self.data.mean(("step", "block", "head"), skipna=False, dtype=np.float64)

    def __repr__(self) -> str:
        return (
            f"ReceivedAttention({self.data.sizes['token']} tokens from {self.queries} tokens; "
            f"{self.selection})"
        )
