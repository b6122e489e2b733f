"""Reading reference images and masks: orientation, colour and transparency are decided here."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from recast_probe.errors import InputError

ImageSource = Image.Image | str | Path
"""A PIL image or the path of an image file."""

ImageSources = ImageSource | Sequence[ImageSource]
"""One image, or several for pipelines that take several references."""

MaskSource = Image.Image | np.ndarray | str | Path
"""A PIL image, the path of an image file, or a two-dimensional array (true or bright = inside)."""


def _open(source: ImageSource, what: str) -> Image.Image:
    if isinstance(source, Image.Image):
        return ImageOps.exif_transpose(source)
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_file():
            raise InputError(f"{what}: there is no file {str(path)!r}; check the path.")
        try:
            return _decoded(path)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise InputError(
                f"{what}: {str(path)!r} has too many pixels ({error}); make it smaller. A picture "
                "that you trust is read after PIL.Image.MAX_IMAGE_PIXELS was raised."
            ) from error
        # a damaged file makes its decoder raise nearly anything
        except Exception as error:
            raise InputError(
                f"{what}: {str(path)!r} cannot be read as an image "
                f"({str(error) or type(error).__name__}); save it again as PNG or JPEG."
            ) from error
    raise InputError(
        f"{what} must be a PIL image or the path of an image file, not {type(source).__name__}."
    )


def _decoded(path: Path) -> Image.Image:
    """The whole picture, upright; the first one where a file holds several."""
    with warnings.catch_warnings():
        # PIL only warns of a picture that has up to twice its limit of pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as file:
            file.load()
            return ImageOps.exif_transpose(file)


def _eight_bit(image: Image.Image, what: str) -> Image.Image:
    """16-bit grey scaled to 8 bits; PIL's own conversion would clip it."""
    if image.mode in ("I", "F"):
        raise InputError(
            f"{what} has 32-bit pixels, and nothing says which value is white; save it with 8 or "
            "16 bits."
        )
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image, dtype=np.uint32) >> 8).astype(np.uint8))
    return image


def load_image(source: ImageSource) -> Image.Image:
    """An upright RGB image.

    The EXIF orientation is applied, transparency is composited on white.

    Raises:
        InputError: no such file, not an image, damaged, more pixels than PIL's limit against
            decompression bombs, or 32-bit pixels.
    """
    image = _eight_bit(_open(source, "The reference image"), "The reference image")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.new("RGBA", layer.size, "white")
        image.alpha_composite(layer)
    return image.convert("RGB")


def load_images(source: ImageSources) -> list[Image.Image]:
    """One image or several, each as ``load_image`` reads it.

    Raises:
        InputError: an empty list, or an image that cannot be read.
    """
    if isinstance(source, Image.Image | str | Path) or not isinstance(source, Sequence):
        return [load_image(source)]
    if not source:
        raise InputError("The list of reference images is empty; give at least one image.")
    return [load_image(each) for each in source]


def load_mask(source: MaskSource) -> np.ndarray:
    """A mask as float32 in 0..1, shape (height, width).

    A mask image with a varying alpha channel is read from its alpha, any other from its luminance.

    Raises:
        InputError: a file as in ``load_image``, or an array that is not two-dimensional.
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 2 or source.size == 0:
            raise InputError(
                f"The mask must be a two-dimensional array (height, width), got shape "
                f"{source.shape}."
            )
        mask = source.astype(np.float32)
        if not np.isfinite(mask).all():
            raise InputError("The mask holds values that are not finite.")
        largest = float(mask.max())
        return mask / largest if largest > 1 else mask
    image = _eight_bit(_open(source, "The mask"), "The mask")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
        if alpha.min() != alpha.max():
            return alpha.astype(np.float32) / 255
    return np.asarray(image.convert("L"), dtype=np.float32) / 255


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


def load_mask_of(image: ImageSource, source: MaskSource) -> np.ndarray:
    """A mask as ``load_mask`` reads it, checked to have the aspect ratio of its image.

    Raises:
        InputError: unreadable, or of another aspect ratio.
    """
    mask = load_mask(source)
    check_same_shape(mask, load_image(image))
    return mask


def fit_mask(mask: np.ndarray, image: Image.Image) -> np.ndarray:
    """A mask (height, width), bool or 0..1, at the size of an image: bool, true above one half."""
    grey = Image.fromarray((np.asarray(mask, dtype=np.float32) * 255).astype(np.uint8))
    return np.asarray(grey.resize(image.size, Image.Resampling.BILINEAR)) > 127


def image_digest(image: Image.Image) -> str:
    """SHA-256 over size, mode and pixels of an image (hexadecimal)."""
    digest = hashlib.sha256(f"{image.mode} {image.width}x{image.height}\n".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()
