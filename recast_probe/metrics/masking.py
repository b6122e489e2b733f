"""The subject alone: everything outside a mask becomes grey, then the mask's box is cut out.

Whole-image features mostly measure the background, so every identity score works on this.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.images.loading import fit_mask
from recast_probe.images.mask_values import mask_values

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)

Mask = np.ndarray

LARGEST_RATIO = 20
"""Of the sides of a picture that is scored; a square around a longer one would be all grey."""
LARGEST_CANVAS = 2**27
"""Pixels of the square with its margins; what would need more is shrunk first."""


def mask_weights(mask: Mask, image: Image.Image) -> np.ndarray:
    """A mask as float32 weights (height, width) in [0, 1].

    `mask` is read by the rule of `mask_values`. One of another size with the aspect ratio of the
    image, such as that of the photograph that it was made from, is scaled to it.
    Raises InputError for another aspect ratio, values that do not say what is inside, or a mask
    without any pixel of at least one half.
    """
    values = np.asarray(mask)
    if values.ndim != 2 or not values.size or not _same_aspect(values, image):
        raise InputError(
            f"The mask has shape {values.shape}, the image has height {image.height} and width "
            f"{image.width}: their aspect ratios differ. Give a mask drawn on this image."
        )
    weights = mask_values(values)
    if values.shape != (image.height, image.width):
        weights = fit_mask(weights, image).astype(np.float32)
    if not (weights >= 0.5).any():
        raise InputError("The mask marks no pixel: no value reaches 0.5.")
    return weights


def _same_aspect(mask: np.ndarray, image: Image.Image) -> bool:
    """To 1 %, and to the rounding of one pixel."""
    height, width = mask.shape
    wanted = width * image.height / image.width
    return abs(height - wanted) <= max(0.01 * wanted, 1)


def pixels(image: Image.Image) -> np.ndarray:
    """An image as float32 sRGB (height, width, 3) in [0, 1]."""
    _check_picture(image)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0


def _check_picture(image: Image.Image) -> None:
    if not isinstance(image, Image.Image):
        raise InputError(f"Expected a PIL image, got {type(image).__name__}.")
    width, height = image.size
    if max(width, height) > LARGEST_RATIO * min(width, height):
        raise InputError(
            f"A picture of {width} x {height} pixels is too narrow to be scored: one side may be "
            f"at most {LARGEST_RATIO} times as long as the other. Cut it."
        )


def isolate(
    image: Image.Image,
    mask: Mask | None,
    size: int = 128,
    padding: float = 0.15,
    fill: np.ndarray = IMAGENET_MEAN,
) -> np.ndarray:
    """The masked subject on ImageNet's mean grey as float32 sRGB (size, size, 3) in [0, 1].

    The square around the mask's box, widened on each side by `padding` times its length, is
    resized to `size` pixels. Without a mask the whole image is the subject, made square with grey.
    `fill` (3,) is another grey: an encoder's own mean, which its normalisation turns into zeros.

    Raises:
        InputError: a picture that is too narrow, or a mask of another shape or that marks nothing.

    Examples:
        >>> mask = np.zeros((20, 30))
        >>> mask[5:15, 5:15] = 1
        >>> isolate(Image.new("RGB", (30, 20), "red"), mask, size=8).shape
        (8, 8, 3)
    """
    _check_picture(image)
    if mask is None:
        weights = np.ones((image.height, image.width), dtype=np.float32)
        padding = 0.0
    else:
        weights = mask_weights(mask, image)
    return _square(image, weights, size, padding, fill)


def _square(
    image: Image.Image, weights: np.ndarray, size: int, padding: float, fill: np.ndarray
) -> np.ndarray:
    inside = weights >= 0.5
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    top, bottom = rows.min(), rows.max() + 1
    left, right = columns.min(), columns.max() + 1
    half = max(bottom - top, right - left) * (0.5 + padding)
    margin = int(np.ceil(half)) + 1
    shape = (image.height + 2 * margin, image.width + 2 * margin, 3)
    if shape[0] * shape[1] > LARGEST_CANVAS:
        factor = 1 + int((shape[0] * shape[1] / LARGEST_CANVAS) ** 0.5)
        weights = np.asarray(Image.fromarray(weights).reduce(factor))
        if weights.max() < 0.5:  # a subject thinner than the factor
            weights = weights / weights.max()
        return _square(image.convert("RGB").reduce(factor), weights, size, padding, fill)
    colours = weights[..., None] * pixels(image) + (1 - weights[..., None]) * fill
    canvas = np.empty(shape, dtype=np.uint8)
    canvas[:] = _eight_bits(fill)
    canvas[margin:-margin, margin:-margin] = _eight_bits(colours)

    row, column = (top + bottom) / 2 + margin, (left + right) / 2 + margin
    square = Image.fromarray(canvas).resize(
        (size, size),
        Image.Resampling.BICUBIC,
        box=(column - half, row - half, column + half, row + half),
    )
    return np.asarray(square, dtype=np.float32) / 255.0


def _eight_bits(colours: np.ndarray) -> np.ndarray:
    return (np.asarray(colours, dtype=np.float32) * 255).round().astype(np.uint8)
