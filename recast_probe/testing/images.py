"""Comparing images that should be the same."""

from __future__ import annotations

from typing import Any

import numpy as np


def assert_same_image(found: Any, expected: Any, levels: int = 0) -> None:
    """Raise AssertionError unless two images are the same.

    Args:
        found, expected: PIL images or arrays (height, width, channel) of grey levels 0 to 255.
        levels: largest allowed difference of a pixel. 0 asks for the same bits; computing the same
            numbers in another order may tip the rounding of a pixel by 1.

    >>> assert_same_image(np.zeros((2, 2, 3)), np.ones((2, 2, 3)), levels=1)
    """
    one, other = (np.asarray(each).astype(np.int64) for each in (found, expected))
    assert one.shape == other.shape, f"The images have the shapes {one.shape} and {other.shape}."
    difference = np.abs(one - other)
    assert difference.max(initial=0) <= levels, (
        f"{(difference > levels).any(axis=-1).sum()} of {difference[..., 0].size} pixels differ by "
        f"more than {levels} of 255 grey levels, the worst by {difference.max()}."
    )
