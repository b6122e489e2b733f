"""Decoding pictures: which formats are read, up to which size, and what is refused before."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from recast_probe.errors import InputError
from recast_probe.files.input_files import opened

ImageSource = Image.Image | str | Path
"""A PIL image or the path of an image file."""

# none of these starts another program, as the reader of PostScript does
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
LONGEST_SIDE = 32_768
LARGEST_RATIO = 1000
"""Of the sides: a line is not a picture. Code that squares its pictures has a separate limit."""


def open_picture(source: ImageSource | bytes, what: str) -> Image.Image:
    """A decoded upright picture in the mode that it has; the first one where there are several.

    Args:
        source: a PIL image, the path of a file, or the bytes of one.
        what: what it is, for messages, such as "The mask".

    Raises:
        InputError: no such file, no regular one, not of `FORMATS`, damaged, or of a size outside
            the limits here and PIL's own against decompression bombs; nothing is decoded then.
    """
    if isinstance(source, Image.Image):
        return _of_pil(source, what)
    if isinstance(source, bytes):
        return _decoded(io.BytesIO(source), what, what)
    if isinstance(source, str | Path):
        with opened(source, what) as file:
            return _decoded(file, what, f"{what}: {str(source)!r}")
    if isinstance(source, np.ndarray):
        raise InputError(
            f"{what} is an array of shape {source.shape}; make a picture of it first by "
            "PIL.Image.fromarray(array), for uint8 of shape (height, width, 3)."
        )
    raise InputError(
        f"{what} must be a PIL image or the path of an image file, not {type(source).__name__}."
    )


def _of_pil(image: Image.Image, what: str) -> Image.Image:
    _check_size(image, what)
    # what is not read yet would be read by the plugin of its format
    if getattr(image, "tile", None) and image.format not in (*FORMATS, "MPO"):
        raise InputError(
            f"{what} is a picture in the format {image.format} that is not read yet; call its "
            f"load() first if you trust it, or give one of {', '.join(FORMATS)}."
        )
    try:
        return _upright(image)
    except Exception as error:
        raise InputError(
            f"{what} is a PIL image that cannot be read ({_reason(error)}); it was closed, or its "
            "file is damaged. Open it again, or give the path of its file."
        ) from error


def _decoded(file: BinaryIO, what: str, named: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # PIL only warns of a picture that has up to twice its limit of pixels
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                _check_size(image, what)
                if image.format == "PNG":
                    # decoding alone does not look at the checksums of the pixels
                    image.verify()
                    file.seek(0)
                    return _upright(Image.open(file, formats=("PNG",)))
                return _upright(image)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"{named} has too many pixels ({error}); make it smaller. A picture that you trust is "
            "read after PIL.Image.MAX_IMAGE_PIXELS was raised."
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(
            f"{named} cannot be read as an image: it is none of {', '.join(FORMATS)}, or its "
            "beginning is damaged. Save it again as PNG or JPEG."
        ) from error
    # a damaged file makes its decoder raise nearly anything
    except Exception as error:
        raise InputError(
            f"{named} cannot be read as an image ({_reason(error)}); save it again as PNG or JPEG."
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    upright = ImageOps.exif_transpose(image)
    # a copy forgets it, and masks are read by it
    upright.format = image.format
    return upright


def _check_size(image: Image.Image, what: str) -> None:
    width, height = image.size
    if min(width, height) < 1:
        raise InputError(f"{what} is {width} x {height} pixels; it must have at least one.")
    if max(width, height) > LONGEST_SIDE:
        raise InputError(
            f"{what} is {width} x {height} pixels; the longest side that is read is "
            f"{LONGEST_SIDE:,}. Make it smaller."
        )
    if max(width, height) > LARGEST_RATIO * min(width, height):
        raise InputError(
            f"{what} is {width} x {height} pixels; one side may be at most {LARGEST_RATIO} times "
            "as long as the other. Cut it."
        )


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def has_alpha(image: Image.Image) -> bool:
    """Whether a picture says how transparent its pixels are."""
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def as_rgba(image: Image.Image, what: str) -> Image.Image:
    """A picture of any mode with 8 bits a channel in RGBA.

    Raises:
        InputError: PIL knows no conversion.
    """
    try:
        # the ones of premultiplied alpha are known from one mode each only
        between = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
        return image.convert(between).convert("RGBA")
    except Exception as error:
        raise InputError(
            f"{what} has the mode {image.mode!r}, which cannot be made RGB ({_reason(error)}); "
            "convert it first."
        ) from error
