"""Null models for the overlap with a mask: some keep its shape, some know where subjects are.

| null | keeps | loses |
| --- | --- | --- |
| toroidal shifts | the mask's shape and size | its position |
| masks of other subjects | where subjects are, and how large | this subject's own shape |
| centre prior | that subjects are near the middle | everything else |

A map that merely prefers the middle beats the shifts, and neither of the other two.
"""

from __future__ import annotations

import numpy as np

from recast_probe.errors import InputError
from recast_probe.layout import Grid

CENTER_SPREAD = 0.25


def center_prior(grid: Grid, spread: float = CENTER_SPREAD) -> np.ndarray:
    """A map that only prefers the middle of an image: a Gaussian, 1 in the very middle.

    On a square grid any spread gives one order of the tokens, and so one AUROC.

    Args:
        spread: standard deviation along each side, as a fraction of that side.

    Returns:
        float64 (rows, columns).

    Raises:
        InputError: a spread that is not above 0; tokens without places.

    Examples:
        >>> center_prior(Grid(1, 3)).round(2)
        array([[0.41, 1.  , 0.41]])
    """
    if not grid.placed:
        raise InputError("Tokens without places have no middle.")
    if not spread > 0:
        raise InputError(f"spread must be above 0, got {spread}.")
    # whole numbers, so that places as far from the middle tie exactly
    down, right = (2 * np.arange(side) + 1 - side for side in (grid.rows, grid.columns))
    distance = (down[:, None] * grid.columns) ** 2 + (right * grid.rows) ** 2
    return np.exp(-distance / (8 * (spread * grid.rows * grid.columns) ** 2))
