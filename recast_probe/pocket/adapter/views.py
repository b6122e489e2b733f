"""What Pocket's IP-Adapter sees of a picture: 32 square windows, each encoded by itself.

diffusers gives every image that its adapter encodes 4 tokens, so 32 windows are 128 tokens. A
window says where it was cut by two rulers along its top and left edge, two pixels wide: white over
the part of the picture's width and height that it shows, black over the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers import CLIPImageProcessor

from recast_probe.errors import InputError

CANVAS = 128
WINDOW = 32  # pixels at which a window is encoded
# side, left and top edge: a grid of overlapping windows, the quarters, the middle, and the whole
WINDOWS: tuple[tuple[int, int, int], ...] = (
    *((32, 24 * column, 24 * row) for row in range(5) for column in range(5)),
    *((64, 64 * column, 64 * row) for row in range(2) for column in range(2)),
    *((64, 32, 32), (96, 16, 16), (128, 0, 0)),
)
RULER = 2  # pixels


def _rulers() -> np.ndarray:
    """uint8 (windows, 32, 32), of which the two edges are used."""
    found = np.zeros((len(WINDOWS), WINDOW, WINDOW), np.uint8)
    scale = CANVAS // WINDOW
    for ruler, (side, left, top) in zip(found, WINDOWS, strict=True):
        ruler[:RULER, left // scale : (left + side) // scale] = 255
        ruler[top // scale : (top + side) // scale, :RULER] = 255
    return found


RULERS = _rulers()
ON_RULER = np.zeros((WINDOW, WINDOW), bool)
ON_RULER[:RULER] = ON_RULER[:, :RULER] = True


class Views(CLIPImageProcessor):
    """CLIP's preprocessing of the windows of each image, in place of the image itself.

    A pipeline that has it as its ``feature_extractor`` takes whole pictures. One that has not
    takes `windows` of a picture as its images, with the same result.

    Attributes:
        views: windows of each image.

    Examples:
        >>> from recast_probe.pocket import samples
        >>> tuple(Views()(samples()[0].image, return_tensors="pt").pixel_values.shape)
        (32, 3, 32, 32)
    """

    views = len(WINDOWS)

    def __init__(self, **settings: Any) -> None:
        sizes = {"size": {"shortest_edge": WINDOW}, "crop_size": WINDOW}
        super().__init__(**sizes | settings)

    def __call__(self, images: Any, *arguments: Any, **settings: Any) -> Any:
        pictures = list(images) if isinstance(images, list | tuple) else [images]
        cut = [window for picture in pictures for window in windows(picture)]
        return super().__call__(cut, *arguments, **settings)


def windows(picture: Image.Image | np.ndarray) -> list[Image.Image]:
    """The 32 windows of a picture, which is cut to its middle square and scaled to 128 pixels.

    Args:
        picture: an image, or uint8 of shape (height, width, 3).

    Raises:
        InputError: something else.

    Examples:
        >>> from recast_probe.pocket import samples
        >>> [window.size for window in windows(samples()[0].image)][::12]
        [(32, 32), (32, 32), (32, 32)]
    """
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise InputError(
                f"The picture is an array of {picture.dtype} of shape {picture.shape}; give "
                "uint8 of shape (height, width, 3), or an image."
            )
        picture = Image.fromarray(picture)
    if not isinstance(picture, Image.Image):
        raise InputError(f"The picture is a {type(picture).__name__}; give an image.")
    side = min(picture.size)
    left, top = ((edge - side) // 2 for edge in picture.size)
    square = picture.convert("RGB").crop((left, top, left + side, top + side))
    if side != CANVAS:
        square = square.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)
    found = []
    for (edge, x, y), ruler in zip(WINDOWS, RULERS, strict=True):
        window = square.crop((x, y, x + edge, y + edge))
        pixels = np.array(window.resize((WINDOW, WINDOW), Image.Resampling.BICUBIC))
        pixels[ON_RULER] = ruler[ON_RULER, None]
        found.append(Image.fromarray(pixels))
    return found


def window_pixels(pictures: torch.Tensor) -> torch.Tensor:
    """The windows of many pictures at once, for training.

    Args:
        pictures: (batch, 3, 128, 128) in -1..1.

    Returns:
        uint8 (batch, windows, 3, 32, 32), of a rounding's distance to `windows`.
    """
    cut = []
    for side, left, top in WINDOWS:
        window = pictures[..., top : top + side, left : left + side]
        if side != WINDOW:
            window = functional.interpolate(window, (WINDOW,) * 2, mode="bicubic", antialias=True)
        cut.append(window)
    pixels = torch.stack(cut, 1).mul(127.5).add(127.5).round().clamp(0, 255).to(torch.uint8)
    rulers = torch.from_numpy(RULERS).to(pixels.device)[:, None]
    return torch.where(torch.from_numpy(ON_RULER).to(pixels.device), rulers, pixels)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels uint8 (..., 3, height, width) as the encoder takes them, float32."""
    mean, deviation = (
        torch.tensor(values, device=pixels.device)[:, None, None]
        for values in (CLIPImageProcessor.image_mean, CLIPImageProcessor.image_std)
    )
    return (pixels / 255 - mean) / deviation
