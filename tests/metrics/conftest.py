"""Drawn subjects on noise backgrounds, with their true masks, as fixtures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw


def draw_subject(seed: int, size: int = 96) -> Image.Image:
    """A striped shape (RGBA) that is the same for the same seed and different for another."""
    random = np.random.default_rng(seed)
    canvas = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    draw = ImageDraw.Draw(canvas)
    body = tuple(int(value) for value in random.integers(0, 256, 3))
    corners = random.integers(3, 9)
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False) + random.uniform(0, 2)
    radii = random.uniform(0.3, 0.5, corners) * size
    points = [
        (size / 2 + radius * np.cos(angle), size / 2 + radius * np.sin(angle))
        for radius, angle in zip(radii, angles, strict=True)
    ]
    draw.polygon(points, fill=(*body, 255))
    alpha = canvas.getchannel("A")
    for _ in range(4):
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        left, top = random.integers(0, int(size * 0.7), 2)
        width, height = random.integers(size // 8, size // 2, 2)
        box = [int(left), int(top), int(left + width), int(top + height)]
        if random.random() < 0.5:
            draw.ellipse(box, fill=(*colour, 255))
        else:
            draw.rectangle(box, fill=(*colour, 255))
    canvas.putalpha(alpha)
    return canvas


def place_subject(
    drawing: Image.Image, seed: int, size: int = 128, place: tuple[int, int] | None = None
) -> tuple[Image.Image, np.ndarray]:
    """The drawing on a background of coloured noise, and its mask (size, size)."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    if place is None:
        place = tuple(int(value) for value in random.integers(0, size - drawing.width + 1, 2))
    image.paste(drawing, place, drawing)
    mask = np.zeros((size, size), dtype=bool)
    alpha = np.asarray(drawing.getchannel("A")) >= 128
    mask[place[1] : place[1] + drawing.height, place[0] : place[0] + drawing.width] = alpha
    return image, mask


@pytest.fixture(scope="session")
def subject():
    """`subject(seed, size=96)`: a drawing (RGBA)."""
    return draw_subject


@pytest.fixture(scope="session")
def composite():
    """`composite(drawing, seed, size=128, place=None)`: an image and its subject's mask."""
    return place_subject
