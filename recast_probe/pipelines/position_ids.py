"""Grids of images, read from the position ids of their tokens or from the images' shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch

from recast_probe.errors import VerificationError
from recast_probe.layout import Grid


def raster_grids(positions: torch.Tensor, name: str) -> list[Grid]:
    """Grids of the images that position ids stand for, in their order.

    Args:
        positions: (token, axis) or (batch, token, axis); the axes begin with image, row, column.
        name: of the family, for the message.

    Raises:
        VerificationError: the position ids are not raster grids, one image after the other.

    Examples:
        >>> import torch
        >>> rows, columns = torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij")
        >>> ids = torch.stack([torch.zeros(2, 3), rows, columns], dim=-1).reshape(6, 3)
        >>> [(grid.rows, grid.columns) for grid in raster_grids(ids, "mine")]
        [(2, 3)]
    """
    positions = positions[0] if positions.ndim == 3 else positions
    ids = positions.detach().float().cpu().numpy().round().astype(np.int64)
    images, counts = np.unique(ids[:, 0], return_counts=True)
    grids, start = [], 0
    for count in counts:
        part = ids[start : start + count]
        rows, columns = (part[:, axis].max() - part[:, axis].min() + 1 for axis in (1, 2))
        raster = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)
        found = part[:, 1:3] - part[:, 1:3].min(axis=0)
        # besides row and column, all tokens of an image have the same numbers
        others = np.ptp(np.delete(part, (1, 2), axis=1), axis=0)
        if others.any() or found.shape != raster.shape or (found != raster).any():
            raise VerificationError(
                "The transformer's image position ids are not raster grids one after the other "
                f"(images {images.tolist()}, {counts.tolist()} tokens); this pipeline does not "
                f"lay out tokens as {name} does."
            )
        grids.append(Grid(rows=int(rows), columns=int(columns)))
        start += count
    return grids


def grids_of_shapes(
    shapes: Sequence[Sequence[Any]], inputs: Mapping[str, Any], family: str
) -> list[Grid]:
    """Grids of the images that a transformer is given the shapes of, in their order.

    Args:
        shapes: (frame, height, width) of every image, for every prompt.
        inputs: of the transformer call.
        family: whose pipeline it should be.

    Raises:
        VerificationError: the shapes differ by prompt, are of videos, or do not fit the tokens.
    """
    tokens = int(inputs["hidden_states"].shape[1])
    first = [tuple(int(side) for side in shape) for shape in shapes[0]]
    if (
        any(list(each) != list(shapes[0]) for each in shapes)
        or any(frames != 1 for frames, _, _ in first)
        or sum(map(prod, first)) != tokens
    ):
        raise VerificationError(
            f"The transformer was given {tokens} image tokens and the shapes {shapes}; this "
            f"pipeline does not lay out tokens as {family} does."
        )
    return [Grid(rows, columns) for _, rows, columns in first]
