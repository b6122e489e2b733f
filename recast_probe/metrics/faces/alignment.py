"""A face brought into the pose in which recognition networks were trained.

Deng et al., "ArcFace" (2019): eyes, nose and corners of the mouth are moved onto five fixed places
of a 112 x 112 image by a similarity: one rotation, one scale, one shift.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import ndimage

from recast_probe.errors import InputError
from recast_probe.metrics.masking import pixels

SIZE = 112
# x, y of: left eye, right eye (as seen in the picture), nose, left and right corner of the mouth
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


def similarity(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The similarity (2, 3) that brings points (n, 2) nearest to targets (n, 2).

    Least squares over rotation, scale and shift without reflection: Umeyama, "Least-squares
    estimation of transformation parameters between two point patterns" (1991), Eqs. 40 to 42.
    Raises InputError when all points lie in one place.

    Examples:
        >>> similarity(TEMPLATE, 2 * TEMPLATE).round(6) + 0.0
        array([[2., 0., 0.],
               [0., 2., 0.]])
    """
    points, targets = np.asarray(points, np.float64), np.asarray(targets, np.float64)
    centre, target_centre = points.mean(axis=0), targets.mean(axis=0)
    spread = ((points - centre) ** 2).sum(axis=1).mean()
    if not spread > 0:
        raise InputError("The points of the face lie in one place; there is no pose to find.")
    covariance = (targets - target_centre).T @ (points - centre) / len(points)
    left, values, right = np.linalg.svd(covariance)
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = left @ np.diag(signs) @ right
    scale = (values * signs).sum() / spread
    shift = target_centre - scale * rotation @ centre
    return np.column_stack([scale * rotation, shift])


def align(image: Image.Image, points: np.ndarray, size: int = SIZE) -> np.ndarray:
    """The face with its five points (5, 2) on the template: float32 sRGB (size, size, 3) in 0..1.

    Bilinear, black outside the image. `size` other than 112 scales the template.

    Raises:
        InputError: all points in one place, or not a PIL image.

    Examples:
        >>> align(Image.new("RGB", (112, 112), "white"), TEMPLATE, size=56).shape
        (56, 56, 3)
    """
    return warp(pixels(image), similarity(points, TEMPLATE * (size / SIZE)), size)


def warp(colours: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """An array (height, width, 3) moved by a similarity (2, 3) of x and y, to (size, size, 3).

    Whole numbers are the centres of pixels; bilinear, blending into zeros over the border.
    """
    inverse = np.linalg.inv(np.vstack([matrix, [0.0, 0.0, 1.0]]))
    rows, columns = np.mgrid[:size, :size]
    x, y, _ = inverse @ np.stack([columns.ravel(), rows.ravel(), np.ones(size * size)])
    moved = [
        ndimage.map_coordinates(
            colours[..., channel].astype(np.float64), [y, x], order=1, mode="grid-constant"
        )
        for channel in range(3)
    ]
    return np.stack(moved, axis=-1).reshape(size, size, 3).astype(np.float32)
