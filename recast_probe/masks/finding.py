"""What a mask finder is, the finders by name, and the check of what one returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from recast_probe.content.description import described
from recast_probe.errors import InputError
from recast_probe.images.loading import image_digest
from recast_probe.masks.grabcut import GrabCut
from recast_probe.masks.u2net import U2NetP

MaskFinder = Callable[[Image.Image], np.ndarray]
"""Takes an upright RGB image; gives its foreground, bool or 0..1, shape (height, width)."""

FINDERS: dict[str, Callable[[], MaskFinder]] = {
    "u2netp+grabcut": lambda: GrabCut(U2NetP()),
    "u2netp": U2NetP,
}


def mask_finder(name: str) -> MaskFinder | None:
    """A finder by name, ready to run; None for "none".

    Raises:
        InputError: an unknown name, a package that is missing, or damaged weights.

    Examples:
        >>> mask_finder("none") is None
        True
    """
    if name == "none":
        return None
    if name not in FINDERS:
        raise InputError(f"There is no mask finder {name!r}; there is {', '.join(FINDERS)}, none.")
    return FINDERS[name]()


def finder_name(finder: MaskFinder) -> str:
    """What people read of a finder: its `name`, or that of the function or of its class.

    Two finders may share it; `finder_identity` tells them apart.

    Examples:
        >>> def bright(image):
        ...     return np.asarray(image.convert("L")) / 255
        >>> finder_name(bright)
        'bright'
    """
    own = getattr(finder, "name", None) or getattr(finder, "__qualname__", None)
    return str(own or type(finder).__qualname__)


def finder_identity(finder: MaskFinder, *, strict: bool = True) -> dict[str, Any]:
    """Everything that decides what a finder finds, ready for JSON: equal only if two do the same.

    This package's own are told by their settings, any other by the content of its code, of what it
    closes over and of its attributes, as they are now. One that keeps something from call to call
    can leave that out by a `__getstate__`.

    Args:
        strict: refuse a finder without content, as needed where results are stored.

    Raises:
        NoContent: an InputError; see ``strict``.

    Examples:
        >>> def bright(image):
        ...     return np.asarray(image.convert("L")) / 255
        >>> def above(least):
        ...     return lambda image: bright(image) > least
        >>> finder_identity(above(0.5)) == finder_identity(OncePerImage(above(0.5)))
        True
        >>> finder_identity(above(0.5)) == finder_identity(above(0.6))
        False
    """
    if type(finder) is OncePerImage:
        return finder_identity(finder.finder, strict=strict)
    name = {"name": finder_name(finder)}
    if type(finder) not in (GrabCut, U2NetP):
        return name | {"does": described(finder, strict=strict, name="The mask finder")}
    settings = {
        key: finder_identity(value, strict=strict) if key == "finder" else described(value)
        for key, value in vars(finder).items()
    }
    return name | settings


def find_mask(image: Image.Image, finder: MaskFinder) -> np.ndarray:
    """The foreground of an image, bool (height, width); all false where the finder sees none.

    Raises:
        InputError: the finder gave another shape, or values that are not a mask.

    Examples:
        >>> def bright(image):
        ...     return np.asarray(image.convert("L")) / 255
        >>> find_mask(Image.new("RGB", (3, 2), "white"), bright).shape
        (2, 3)
    """
    found = np.asarray(finder(image))
    if found.shape != (image.height, image.width):
        raise InputError(
            f"The mask finder {finder_name(finder)} gave an array of shape {found.shape} for an "
            f"image of height {image.height} and width {image.width}; it must give one value for "
            "each pixel."
        )
    if found.dtype == bool:
        return found
    values = found.astype(np.float32)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise InputError(
            f"The mask finder {finder_name(finder)} gave values from {values.min()} to "
            f"{values.max()}; a mask is boolean or between 0 and 1."
        )
    return values > 0.5


class OncePerImage:
    """A finder that remembers what it found in the last few images, by their pixels.

    It does not look whether the finder was changed since.

    Args:
        finder: the finder that is asked.
        images: how many are remembered.

    Raises:
        InputError: when called, as `find_mask`.

    Examples:
        >>> def bright(image):
        ...     return np.asarray(image.convert("L")) / 255
        >>> OncePerImage(bright)(Image.new("RGB", (3, 2), "white")).shape
        (2, 3)
    """

    def __init__(self, finder: MaskFinder, images: int = 4) -> None:
        self.finder, self.images = finder, images
        self.name = finder_name(finder)
        self._found: dict[str, np.ndarray] = {}

    def __call__(self, image: Image.Image) -> np.ndarray:
        digest = image_digest(image)
        # taken out and put back, so that the one that was not wanted for longest is forgotten
        found = self._found.pop(digest, None)
        self._found[digest] = find_mask(image, self.finder).copy() if found is None else found
        while len(self._found) > self.images:
            del self._found[next(iter(self._found))]
        # a copy, so that nobody changes what the next one gets
        return self._found[digest].copy()

    def __getstate__(self) -> dict[str, Any]:
        """Without what was found: it does not make this another finder."""
        return vars(self) | {"_found": {}}
