"""Colour identity: how much of two subjects' colour distributions coincides.

ImageNet features hardly see a change of hue, so colour has a separate score.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from recast_probe.metrics.masking import Mask, mask_weights, pixels

# Linear sRGB to CIE XYZ (IEC 61966-2-1), and the D65 white point of the 2 degree observer.
SRGB_TO_XYZ = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
WHITE = np.array([0.95047, 1.0, 1.08883])

# Lab cells: lightness in steps of 12.5, a and b in steps of 12.5 from -87.5 to 100.
BINS = (8, 15, 15)
LOWER = np.array([0.0, -87.5, -87.5])
STEP = 12.5


def srgb_to_lab(colours: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] (..., 3) to CIE L*a*b* (..., 3): L in 0..100, a and b around 0.

    Raises:
        ValueError: the last axis has another length than 3.

    Examples:
        >>> np.abs(srgb_to_lab([1.0, 1.0, 1.0])).round(1)
        array([100.,   0.,   0.])
    """
    colours = np.asarray(colours, dtype=np.float64)
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    relative = linear @ SRGB_TO_XYZ.T / WHITE
    root = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116)
    lightness = 116 * root[..., 1] - 16
    red_green = 500 * (root[..., 0] - root[..., 1])
    yellow_blue = 200 * (root[..., 1] - root[..., 2])
    return np.stack([lightness, red_green, yellow_blue], axis=-1)


def lab_histogram(image: Image.Image, mask: Mask | None = None) -> np.ndarray:
    """Share of the subject's pixels in each Lab cell: (8, 15, 15), sums to 1.

    Every pixel is spread over the eight nearest cells by trilinear weights, so that a small shift
    of colour moves the histogram a little instead of jumping over a cell's edge. Colours
    outside the cells count in the nearest one. Raises InputError for an unusable mask.

    Examples:
        >>> found = lab_histogram(Image.new("RGB", (4, 4), "red"))
        >>> found.shape, float(found.sum().round(6))
        ((8, 15, 15), 1.0)
    """
    colours = pixels(image).reshape(-1, 3)
    weights = np.ones(len(colours)) if mask is None else mask_weights(mask, image).ravel()
    inside = weights > 0
    colours, weights = colours[inside], weights[inside]

    position = (srgb_to_lab(colours) - LOWER) / STEP - 0.5
    position = np.clip(position, 0, np.array(BINS) - 1)
    base = np.minimum(position.astype(int), np.array(BINS) - 2)
    fraction = position - base
    histogram = np.zeros(int(np.prod(BINS)))
    for corner in np.ndindex(2, 2, 2):
        share = np.where(corner, fraction, 1 - fraction).prod(axis=1) * weights
        cell = np.ravel_multi_index((base + np.array(corner)).T, BINS)
        histogram += np.bincount(cell, share, minlength=len(histogram))
    return (histogram / histogram.sum()).reshape(BINS)


def colour_similarity(
    image: Image.Image,
    mask: Mask | None,
    reference: Image.Image,
    reference_mask: Mask | None,
) -> float:
    """Intersection of the two Lab histograms, in [0, 1]: the share of colour they have in common.

    1 for the same distribution, 0 when no colour cell is shared. Positions play no part.

    Raises:
        InputError: a picture or a mask that cannot be used.

    Examples:
        >>> red, blue = (Image.new("RGB", (4, 4), each) for each in ("red", "blue"))
        >>> colour_similarity(red, None, blue, None)
        0.0
    """
    first = lab_histogram(image, mask)
    second = lab_histogram(reference, reference_mask)
    return float(min(np.minimum(first, second).sum(), 1.0))
