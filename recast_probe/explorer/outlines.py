"""Sets of reference tokens to draw around: masks, rankings, what an intervention keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recast_probe._utils.checks import check_indices, check_int
from recast_probe.diagnostics import mask_to_grid
from recast_probe.errors import InputError
from recast_probe.interventions.keep import Keep
from recast_probe.layout import TokenLayout
from recast_probe.selection.rankings import Ranking

MOST = 6
"""Outlines whose colours and dashes can still be told apart."""


def outlined_tokens(
    outlines: Mapping[str, Any] | None, layout: TokenLayout
) -> dict[str, list[int]]:
    """By name, the reference tokens inside each outline, ascending.

    Args:
        outlines: by name a mask of the reference as an array (on the token grid or finer; flat,
            bool, (token,), where there are several references), a ranking with how many of its best
            tokens, ``(ranking, 64)``, a ``Keep``, or indices of tokens.

    Raises:
        InputError: more than 6, or one that does not fit the reference.

    Examples:
        >>> from recast_probe.layout import Grid
        >>> layout = TokenLayout(0, Grid(2, 2), (Grid(2, 2),))
        >>> best = Ranking(np.array([3, 1, 0, 2]), "mine")
        >>> outlined_tokens({"fox": np.array([[True, False], [True, False]]),
        ...                  "best": (best, 2), "kept": Keep((0,))}, layout)
        {'fox': [0, 2], 'best': [1, 3], 'kept': [0]}
    """
    found = outlines or {}
    if len(found) > MOST:
        raise InputError(f"outlines holds {len(found)}; at most {MOST} can be told apart.")
    return {str(name): _tokens(str(name), value, layout) for name, value in found.items()}


def _tokens(name: str, value: Any, layout: TokenLayout) -> list[int]:
    count, what = layout.reference_tokens, f"outlines[{name!r}]"
    if isinstance(value, Ranking):
        raise InputError(
            f"{what} is a ranking of all tokens; say how many of the best: (ranking, 64)."
        )
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], Ranking):
        ranking, best = value
        if ranking.tokens != count:
            raise InputError(f"{what} ranks {ranking.tokens} tokens; the reference has {count}.")
        best = check_int(f"The number of tokens of {what}", best, 1)
        return sorted(int(token) for token in ranking.order[:best])
    if isinstance(value, Keep):
        value = value.tokens
    array = np.asarray(value)
    if array.ndim == 2:
        if len(layout.references) != 1 or not layout.placed:
            raise InputError(
                f"{what} is a mask of one picture, and there are {len(layout.references)} "
                f"references; give a flat array of {count} tokens, true inside."
            )
        array = mask_to_grid(array, layout.references[0]).reshape(-1)
    if array.dtype == bool:
        if array.shape != (count,):
            raise InputError(f"{what} has the shape {array.shape}; there are {count} tokens.")
        array = np.flatnonzero(array)
    return check_indices(what, array, count, of="reference tokens", empty=True)
