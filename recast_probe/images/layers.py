"""The picture that transparent layers make when they lie over one another."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image


def composed(layers: Sequence[Image.Image]) -> Image.Image:
    """The layers laid over one another on white, as an RGB image.

    Args:
        layers: of one size, the lowest first.

    Examples:
        >>> red, clear = (Image.new("RGBA", (1, 1), colour) for colour in ("red", (0, 0, 0, 0)))
        >>> composed([red, clear]).getpixel((0, 0))
        (255, 0, 0)
    """
    image = Image.new("RGBA", layers[0].size, "white")
    for layer in layers:
        image.alpha_composite(layer.convert("RGBA"))
    return image.convert("RGB")
