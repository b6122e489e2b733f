"""Reading reference images and masks: orientation, colour and transparency are decided here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from recast_probe.errors import InputError
from recast_probe.images.mask_values import FEWEST, Inside, check_divides, mask_values
from recast_probe.images.pictures import ImageSource, as_rgba, has_alpha, open_picture

ImageSources = ImageSource | Sequence[ImageSource]
"""One image, or several for pipelines that take several references."""

MaskSource = Image.Image | np.ndarray | str | Path
"""A PIL image, the path of an image file, or a two-dimensional array (true or bright = inside)."""

IMAGE, MASK = "The reference image", "The mask"
LEAST_OF_16_BITS = 4096
"""Below it the brightest 16-bit pixel is black in 8 bits, or the file holds 12 bits."""
COLOURLESS = 16
"""Of 255: channels that differ by no more are grey that went through a lossy format."""
_PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")


def _eight_bit(image: Image.Image, what: str) -> Image.Image:
    """16-bit grey scaled to 8 bits; PIL's own conversion would clip it."""
    if image.mode in ("I", "F"):
        raise InputError(
            f"{what} has 32-bit pixels, and nothing says which value is white; save it with 8 or "
            "16 bits."
        )
    if image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.uint32)
        if values.max() < LEAST_OF_16_BITS:
            raise InputError(
                f"{what} has 16-bit pixels, and its brightest is {values.max():,} of 65,535: it "
                "would be black. Save it with 8 bits, or with white at 65,535."
            )
        return Image.fromarray((values >> 8).astype(np.uint8))
    return image


def load_image(source: ImageSource, *, alpha: bool = False) -> Image.Image:
    """An upright RGB image.

    The EXIF orientation is applied, transparency is composited on white.

    Args:
        alpha: leave transparency as it is, in an RGBA image, where there is any.

    Raises:
        InputError: as `open_picture`, or 32-bit pixels, or 16-bit ones that are all black.

    Examples:
        >>> image = load_image(Image.new("RGBA", (4, 2)))
        >>> image.mode, image.getpixel((0, 0))
        ('RGB', (255, 255, 255))
    """
    image = _eight_bit(open_picture(source, IMAGE), IMAGE)
    if has_alpha(image):
        layer = as_rgba(image, IMAGE)
        if alpha and np.asarray(layer.getchannel("A")).min() < 255:
            return layer
        image = Image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
    elif image.mode not in _PLAIN:
        image = as_rgba(image, IMAGE)
    return image.convert("RGB")


def load_images(source: ImageSources, *, alpha: bool = False) -> list[Image.Image]:
    """One image or several, each as ``load_image`` reads it.

    Raises:
        InputError: an empty list, or an image that cannot be read.

    Examples:
        >>> len(load_images([Image.new("RGB", (4, 2))] * 2))
        2
    """
    if isinstance(source, Image.Image | str | Path) or not isinstance(source, Sequence):
        return [load_image(source, alpha=alpha)]
    if not source:
        raise InputError("The list of reference images is empty; give at least one image.")
    return [load_image(each, alpha=alpha) for each in source]


def load_mask(source: MaskSource, inside: Inside = None) -> np.ndarray:
    """A mask as float32 in 0..1, shape (height, width).

    A picture with varying alpha is read from its alpha, any other from its grey values, by the
    rule of `mask_values`. Colours do not say which of them is inside; `inside` says it.

    Args:
        inside: the pixel value (a palette's index) or the colour ("#ff0000") that marks the
            inside; all others are outside. None where the mask says it itself.

    Raises:
        InputError: a file as in ``load_image``, an array that is not two-dimensional, a mask that
            does not say what is inside, or that marks no pixel or every one; the message gives the
            values found.

    Examples:
        >>> load_mask(np.array([[0, 255], [255, 0]]))
        array([[0., 1.],
               [1., 0.]], dtype=float32)
    """
    mask = read_mask(source, inside)
    check_divides(mask, _named(source))
    return mask


def load_mask_of(image: ImageSource, source: MaskSource, inside: Inside = None) -> np.ndarray:
    """A mask, float32 (height, width) in 0..1, checked to have the aspect ratio of its image.

    Args:
        image: the image that the mask belongs to.
        source, inside: see ``load_mask``.

    Raises:
        InputError: unreadable, or of another aspect ratio.

    Examples:
        >>> load_mask_of(Image.new("RGB", (8, 8)), np.array([[0, 255], [255, 0]])).shape
        (2, 2)
    """
    mask = read_mask(source, inside)
    check_same_shape(mask, load_image(image))
    check_divides(mask, _named(source))
    return mask


def check_same_shape(mask: np.ndarray, image: Image.Image) -> None:
    """Check that a mask has the aspect ratio of its image, to 1 %.

    Raises:
        InputError: it has not; the message gives both sizes.
    """
    height, width = mask.shape
    if abs(width / height * image.height / image.width - 1) > 0.01:
        raise InputError(
            f"The mask is {width} x {height} pixels and the image {image.width} x {image.height}: "
            "their aspect ratios differ. Give a mask drawn on this image."
        )


def fit_mask(mask: np.ndarray, image: Image.Image) -> np.ndarray:
    """A mask (height, width), bool or 0..1, at the size of an image: bool, true above one half."""
    grey = Image.fromarray((np.asarray(mask, dtype=np.float32) * 255).astype(np.uint8))
    return np.asarray(grey.resize(image.size, Image.Resampling.BILINEAR)) > 127


def _named(source: MaskSource) -> str:
    return f"{MASK} {str(source)!r}" if isinstance(source, str | Path) else MASK


def read_mask(source: MaskSource, inside: Inside = None) -> np.ndarray:
    """A mask as ``load_mask`` reads it, which may mark nothing or everything."""
    colour = _colour(inside)
    what = _named(source)
    if isinstance(source, np.ndarray):
        if source.ndim != 2 or source.size == 0:
            raise InputError(
                f"The mask must be a two-dimensional array (height, width), got shape "
                f"{source.shape}."
            )
        if colour is not None:
            raise InputError(f"The mask is an array, which has numbers and no colour {inside!r}.")
        return mask_values(source, what, inside)
    image = open_picture(source, MASK)
    if colour is not None:
        return _of_colour(image, colour, what)
    if inside is not None:
        stored = np.asarray(image)
        if stored.ndim == 2:
            return mask_values(stored, what, inside)
        return mask_values(_grey(image, what), what, inside)
    if image.mode in ("I", "F"):
        raise InputError(
            f"{what} has 32-bit pixels, and nothing says which value is white; save it with 8 or "
            "16 bits."
        )
    if has_alpha(image) and (alpha := _alpha(image, what)) is not None:
        return alpha
    if image.mode.startswith("I;16"):
        return mask_values(np.asarray(image, dtype=np.uint16), what)
    return mask_values(_grey(image, what), what, lossy=image.format in ("JPEG", "MPO"))


def _alpha(image: Image.Image, what: str) -> np.ndarray | None:
    """A mask from the alpha channel, None where that is the same everywhere."""
    layer = np.asarray(as_rgba(image, what))
    alpha = layer[..., 3]
    if alpha.min() == alpha.max():
        return None
    visible = layer[alpha > 127][:, :3]
    # an outline that was smoothed leaves both as they are in most places
    shares = [(visible == value).all(-1).sum() / max(len(visible), 1) for value in (0, 255)]
    if min(shares) >= FEWEST and sum(shares) > 0.5:
        raise InputError(
            f"{what} is black and white and has an alpha channel too, so two things could be its "
            "inside; save it without alpha, or as alpha alone."
        )
    return alpha.astype(np.float32) / 255


def _grey(image: Image.Image, what: str) -> np.ndarray:
    """The grey values (height, width), bool for a picture of one bit, else uint8.

    Raises:
        InputError: it has colours.
    """
    if image.mode in ("1", "L"):
        return np.asarray(image)
    plain = as_rgba(image, what).convert("RGB")
    colours = np.asarray(plain)
    if np.ptp(colours.astype(np.int16), axis=-1).max() > COLOURLESS:
        raise InputError(
            f"{what} has colours ({_colours_found(image, colours)}), and they do not say which of "
            "them is inside. Save it in black and white, or name the one that is: "
            'inside="#rrggbb", --mask-inside "#rrggbb".'
        )
    return np.asarray(plain.convert("L"))


def _of_colour(image: Image.Image, colour: tuple[int, int, int], what: str) -> np.ndarray:
    colours = np.asarray(as_rgba(image, what))[..., :3]
    found = (colours == colour).all(-1)
    if not found.any():
        wanted = "#{:02x}{:02x}{:02x}".format(*colour)
        raise InputError(
            f"{what} has no pixel of the colour {wanted}; it has {_colours_found(image, colours)}."
        )
    return found.astype(np.float32)


def _colour(inside: Inside) -> tuple[int, int, int] | None:
    """A colour by its name or number, None for a number or for nothing."""
    if not isinstance(inside, str) or re.fullmatch(r"\d+(\.\d+)?", inside):
        return None
    try:
        red, green, blue = ImageColor.getrgb(inside)[:3]
    except ValueError:
        raise InputError(
            f"inside={inside!r} is neither a pixel's value, such as 15, nor a colour, such as "
            '"#ff0000".'
        ) from None
    return red, green, blue


def _colours_found(image: Image.Image, colours: np.ndarray) -> str:
    flat = colours.reshape(-1, 3).astype(np.uint32)
    levels, counts = np.unique(flat @ np.array([65536, 256, 1], np.uint32), return_counts=True)
    commonest = np.argsort(-counts, kind="stable")[:6]
    named = [f"#{levels[i]:06x} ({counts[i] / len(flat):.0%})" for i in commonest]
    more = f" and {len(levels) - 6:,} more" if len(levels) > 6 else ""
    indices = ""
    if image.mode == "P":
        indices = f"; palette indices {', '.join(map(str, np.unique(np.asarray(image))[:8]))}"
    return ", ".join(named) + more + indices


def image_digest(image: Image.Image) -> str:
    """SHA-256 over size, mode and pixels of an image (hexadecimal)."""
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()
