"""Masks whose inside is known, written in every way that tools write them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from recast_probe import rank
from recast_probe.diagnostics import mask_to_grid
from recast_probe.errors import InputError
from recast_probe.images.loading import load_mask
from recast_probe.layout import Grid
from recast_probe.metrics.masking import mask_weights
from tests.fuzz.harness import FuzzClass


def _folder(folder: Path, _: Path) -> Path:
    return folder


def _truth(rng: random.Random) -> np.ndarray:
    side = rng.choice((24, 48, 96))
    image = Image.new("L", (side, side))
    left, top = (rng.randrange(1, side // 2) for _ in range(2))
    box = (left, top, left + rng.randrange(4, side // 2), top + rng.randrange(4, side // 2))
    draw = ImageDraw.Draw(image)
    (draw.ellipse if rng.random() < 0.5 else draw.rectangle)(box, fill=255)
    return np.asarray(image) > 0


def _two_values(truth: np.ndarray, rng: random.Random) -> Any:
    low, high = rng.choice(
        (
            (0, 1),
            (0, 255),
            (0, 65535),
            (0, 2),
            (0, 15),
            (0, 100),
            (0, 200),
            (0, 128),
            (1, 2),
            (10, 245),
            (-1, 1),
            (0, 254),
            (3, 252),
            (0, 4095),
        )
    )
    kind = rng.choice((np.uint8, np.int64, np.uint16, np.float32, np.float64, np.int32))
    if low < 0 and np.issubdtype(kind, np.unsignedinteger):
        low = 0
    return np.where(truth, high, low).astype(kind)


def _labels(truth: np.ndarray, rng: random.Random) -> np.ndarray:
    """Areas of several labels, the subject's among them, and perhaps a border of 255."""
    count = rng.randrange(2, 8)
    found = np.zeros(truth.shape, np.uint8)
    for label in range(count):
        row, column = (rng.randrange(truth.shape[0]) for _ in range(2))
        found[row : row + 12, column : column + 12] = rng.randrange(1, 22) if label else 2
    found[truth] = rng.randrange(2, 22)
    if rng.random() < 0.5:
        edge = np.asarray(Image.fromarray(truth).convert("L").filter(ImageFilter.FIND_EDGES)) > 0
        found[edge] = 255
    return found


def _picture(truth: np.ndarray, rng: random.Random) -> Any:
    """A picture that marks the truth, in some mode."""
    grey = Image.fromarray(truth.astype(np.uint8) * 255)
    way = rng.randrange(9)
    if way == 0:
        return grey.convert(rng.choice(("1", "L", "RGB", "RGBA", "LA", "P", "CMYK", "HSV")))
    if way == 1:
        layer = Image.new("RGBA", grey.size, (rng.randrange(256), 40, 90, 255))
        layer.putalpha(grey)
        return layer
    if way == 2:
        colour = tuple(rng.choice((0, 128, 255)) for _ in range(3))
        return Image.fromarray((truth[..., None] * np.array(colour)).astype(np.uint8))
    if way == 3:
        labels = Image.fromarray(truth.astype(np.uint8), mode="P")
        labels.putpalette([0, 0, 0, *(rng.randrange(256) for _ in range(3))] + [0] * 762)
        return labels
    if way == 4:
        return Image.fromarray(truth.astype(np.uint16) * rng.choice((1, 255, 257, 65535)))
    if way == 5:
        return Image.fromarray(truth.astype(np.uint8) * rng.choice((1, 2, 15, 200, 255)))
    if way == 6:
        return grey.filter(ImageFilter.GaussianBlur(rng.choice((0.5, 1, 2))))
    if way == 7:
        large = grey.resize((4 * grey.width, 4 * grey.height), rng.choice(list(Image.Resampling)))
        return large.resize(grey.size, Image.Resampling.BOX)
    return Image.fromarray(truth.astype(rng.choice((np.int32, np.float32))))


def _odd(rng: random.Random) -> Any:
    size = (rng.choice((0, 1, 4)), rng.choice((0, 1, 4)))
    return rng.choice(
        (
            np.zeros(size),
            np.ones(size, bool),
            np.full((4, 4), np.nan),
            np.full((4, 4), np.inf),
            np.array([["a", "b"]]),
            np.array([[None, 1]]),
            np.zeros((4, 4, 3)),
            np.zeros(4),
            np.array([[1j, 0]]),
            np.array([[-1.0, 1.0]]),
            np.array(3.0),
            np.full((4, 4), 2**62),
            np.zeros((4, 4), "datetime64[s]"),
            np.zeros((3, 3), [("a", "u1")]),
        )
    )


def mask(rng: random.Random, folder: Path) -> str:
    """Either the mask is read as what it marks, or it is refused."""
    truth = _truth(rng)
    way = rng.randrange(4)
    if way == 0:
        source: Any = _two_values(truth, rng)
    elif way == 1:
        source, truth = _labels(truth, rng), None
    elif way == 2:
        source = _picture(truth, rng)
        if rng.random() < 0.5 and source.mode not in ("F", "HSV", "CMYK"):
            source.save(folder / "mask.png" if source.mode != "I" else folder / "mask.tif")
            source = folder / ("mask.png" if source.mode != "I" else "mask.tif")
    else:
        source, truth = _odd(rng), None
    try:
        found = load_mask(source)
    except InputError:
        _elsewhere(source, truth)
        raise
    if truth is None:
        return "SILENT: labels or no mask became a mask"
    _elsewhere(source, truth)
    wrong = ((found > 0.5) != truth).mean()
    return "right" if wrong < 0.05 else f"SILENT: {wrong:.0%} of the pixels are wrong"


def _elsewhere(source: Any, truth: np.ndarray | None) -> None:
    """The other entry points read an array alike, or refuse it."""
    if not isinstance(source, np.ndarray):
        return
    for read in (_weights, lambda values: mask_to_grid(values, Grid(4, 4)), _oracle):
        try:
            found = read(source)
        except InputError:
            continue
        if truth is not None and found.shape == truth.shape:
            assert ((found > 0.5) == truth).all(), "another entry point reads another mask"


def _weights(values: np.ndarray) -> np.ndarray:
    size = values.shape[1::-1] if values.ndim == 2 and values.size else (1, 1)
    return mask_weights(values, Image.new("RGB", size))


def _oracle(values: np.ndarray) -> np.ndarray:
    order = rank.mask_oracle(values)
    assert 0 < np.count_nonzero(values) < values.size, "an order of nothing"
    return order.order


CLASSES = (FuzzClass("masks", mask, _folder, 1000),)
