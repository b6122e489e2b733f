"""Composed scenes and editing tasks whose subject, mask, placement and true target are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from . import backgrounds
from .backgrounds import CANVAS, COLOURS
from .subjects import Subject

SIZES = {"small": 48, "medium": 64, "large": 96}
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "center", "right")
KINDS = ("new scene", "background", "recolour", "style")
KIND_WEIGHTS = (0.45, 0.35, 0.10, 0.10)
MIDDLE = 0.85  # share of references whose subject is in the middle, medium or large
FREE = 0.05  # share of the other references that stand off the token grid, at any size
SAME_SIZE = 0.9  # share of new scenes in which the subject keeps a named size
CENTRE = ("middle", "center")
SPOTS = tuple((row, column) for row in ROWS for column in COLUMNS)
STYLES = ("sepia", "night", "negative", "poster", "pencil")
TINTS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")


@dataclass(frozen=True)
class Placement:
    """Where the subject stands: side of its square, left and top edge, all in pixels."""

    side: int
    left: int
    top: int

    @classmethod
    def named(cls, size: str, row: str, column: str) -> Placement:
        """The placement that a caption's words name; edges fall on the 8-pixel token grid."""
        side = SIZES[size]
        offsets = (0, (CANVAS - side) // 16 * 8, CANVAS - side)
        margin = 8 if side < 96 else 0
        inside = [min(max(o, margin), CANVAS - side - margin) for o in offsets]
        return cls(side, inside[COLUMNS.index(column)], inside[ROWS.index(row)])


@dataclass(frozen=True)
class View:
    """Everything that draws one picture. `turn` in degrees; `hue` rotates colours, 0..1."""

    subject: Subject
    placement: Placement
    place: str
    place_seed: int
    flip: bool = False
    turn: float = 0.0
    hue: float = 0.0
    tint: str | None = None
    style: str | None = None

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        """Draw it: RGB uint8 (128, 128, 3) and the subject's alpha, float32 (128, 128) in 0..1."""
        canvas = backgrounds.draw(self.place, np.random.default_rng(self.place_seed))
        colour, alpha = self._sprite()
        p = self.placement
        mask = np.zeros((CANVAS, CANVAS), np.float32)
        mask[p.top : p.top + p.side, p.left : p.left + p.side] = alpha
        region = canvas[p.top : p.top + p.side, p.left : p.left + p.side]
        region += (colour - region) * alpha[..., None]
        if self.style is not None:
            canvas = _stylise(canvas, self.style)
        return np.clip(canvas, 0, 255).astype(np.uint8), mask

    def _sprite(self) -> tuple[np.ndarray, np.ndarray]:
        rgba = self.subject.rgba[:, ::-1] if self.flip else self.subject.rgba
        if self.hue:
            rgba = _rotate_hue(rgba, self.hue)
        premultiplied = rgba.astype(np.float32)
        premultiplied[..., :3] *= premultiplied[..., 3:] / 255
        image = Image.fromarray(np.clip(premultiplied, 0, 255).astype(np.uint8))
        if self.turn:
            image = image.rotate(self.turn, Image.Resampling.BILINEAR)
        side = self.placement.side
        pixels = np.asarray(image.resize((side, side), Image.Resampling.BOX), np.float32)
        alpha = pixels[..., 3] / 255
        colour = pixels[..., :3] / np.maximum(alpha, 1e-3)[..., None]
        if self.tint is not None:
            colour = _tint(colour, COLOURS[self.tint])
        return np.clip(colour, 0, 255), alpha


@dataclass(frozen=True)
class Task:
    """One editing task: reference picture, caption and true target picture."""

    kind: str
    reference: View
    target: View
    caption: str


def sample_task(
    subjects: Sequence[Subject],
    rng: np.random.Generator,
    kind: str | None = None,
    subject: Subject | None = None,
    augment: bool = True,
) -> Task:
    """Draw a task. `augment` varies the subject's hue, turn and side beyond the drawings."""
    kind = kind or str(rng.choice(KINDS, p=KIND_WEIGHTS))
    subject = subject or subjects[int(rng.integers(len(subjects)))]
    place, new_place = backgrounds.choose(rng), backgrounds.choose(rng)
    while new_place == place:
        new_place = backgrounds.choose(rng)
    seeds = [int(seed) for seed in rng.integers(0, 2**31, 2)]
    reference = View(
        subject,
        _reference_placement(rng, augment),
        place,
        seeds[0],
        flip=augment and bool(rng.random() < 0.5),
        turn=float(rng.uniform(-15, 15)) if augment and rng.random() < 0.3 else 0.0,
        hue=float(rng.random()) if augment and rng.random() < 0.3 else 0.0,
    )
    words = _subject_words(subject, rng)
    if kind == "background":
        target = replace(reference, place=new_place, place_seed=seeds[1])
        caption = background_caption(words, new_place, rng)
    elif kind == "new scene":
        placement, size, spot = _moved(reference.placement, rng)
        target = replace(reference, placement=placement, place=new_place, place_seed=seeds[1])
        caption = new_scene_caption(words, new_place, size, spot, rng)
    elif kind == "recolour":
        tint = str(rng.choice(TINTS))
        target = replace(reference, tint=tint)
        caption = _pick(rng, "make {} {}", "paint {} {}", "turn {} {}").format(words, tint)
    elif kind == "style":
        style = str(rng.choice(STYLES))
        other = subjects[int(rng.integers(len(subjects)))]
        reference = replace(reference, style=style)
        placement, size, spot = _named_placement(rng)
        target = View(other, placement, new_place, seeds[1], style=style)
        wording = _pick(rng, "in the style of this picture", "in this style")
        caption = f"a {other.name} {wording}, {at(new_place)}, {size}, {spot}"
    else:
        raise ValueError(f"Unknown task kind {kind!r}; there are {', '.join(KINDS)}.")
    return Task(kind, reference, target, caption)


def background_caption(words: str, place: str, rng: np.random.Generator) -> str:
    """Words for: the same subject, in the same spot, before another background."""
    return _pick(
        rng,
        f"change the background to {place}",
        f"keep {words} where it is, {at(place)}",
        f"replace the background with {place}",
        f"{words} in the same spot, {at(place)}",
    )


def new_scene_caption(
    words: str, place: str, size: str, spot: str, rng: np.random.Generator
) -> str:
    """Words for: the same subject in another place, at a named size and spot."""
    return _pick(
        rng,
        f"{words} {at(place)}, {size}, {spot}",
        f"put {words} {at(place)}, {size}, {spot}",
        f"a {size} picture of {words} at the {spot}, {at(place)}",
        f"move {words} to the {spot}, {size}, {at(place)}",
    )


def _subject_words(subject: Subject, rng: np.random.Generator) -> str:
    if rng.random() < 0.5:
        return _pick(rng, "the subject", "it", "this")
    return _pick(rng, "the {}", "this {}").format(subject.name)


def at(place: str) -> str:
    """How a caption says that something is at a place."""
    return f"in front of {place}" if "wall" in place or place in ("the sky",) else f"on {place}"


def middle_placement(rng: np.random.Generator) -> tuple[Placement, str]:
    """A medium or large subject in the middle, as benchmarks show it; with the size's name."""
    size = str(rng.choice(["medium", "large"]))
    return Placement.named(size, *CENTRE), size


def spot_off_centre(rng: np.random.Generator) -> tuple[str, str]:
    """Row and column of one of the eight spots around the middle."""
    others = [spot for spot in SPOTS if spot != CENTRE]
    return others[int(rng.integers(len(others)))]


def _reference_placement(rng: np.random.Generator, augment: bool) -> Placement:
    if rng.random() < MIDDLE:
        return middle_placement(rng)[0]
    if augment and rng.random() < FREE:
        return _free_placement(rng)
    return _named_placement(rng)[0]


def _moved(before: Placement, rng: np.random.Generator) -> tuple[Placement, str, str]:
    """Where a subject goes; it mostly keeps its size, and one in the middle leaves it."""
    side = before.side if before.side in SIZES.values() and rng.random() < SAME_SIZE else None
    while True:
        after, size, spot = _named_placement(rng, side)
        if after != before:
            return after, size, spot


def _named_placement(
    rng: np.random.Generator, side: int | None = None
) -> tuple[Placement, str, str]:
    if side is None:
        side = SIZES[str(rng.choice(list(SIZES), p=(0.25, 0.4, 0.35)))]
    size = next(name for name, pixels in SIZES.items() if pixels == side)
    row, column = SPOTS[int(rng.integers(len(SPOTS)))]
    return Placement.named(size, row, column), size, f"{row} {column}"


def _free_placement(rng: np.random.Generator) -> Placement:
    side = int(rng.integers(44, 105))
    left, top = (int(edge) for edge in rng.integers(0, CANVAS - side + 1, 2))
    return Placement(side, left, top)


def _pick(rng: np.random.Generator, *choices: str) -> str:
    return choices[int(rng.integers(len(choices)))]


def _rotate_hue(rgba: np.ndarray, amount: float) -> np.ndarray:
    hsv = np.array(Image.fromarray(rgba[..., :3]).convert("HSV"))
    hsv[..., 0] += np.uint8(round(amount * 255))
    rgb = np.asarray(Image.fromarray(hsv, mode="HSV").convert("RGB"))
    return np.concatenate([rgb, rgba[..., 3:]], -1)


def _luminance(pixels: np.ndarray) -> np.ndarray:
    return pixels @ np.array([0.299, 0.587, 0.114], np.float32)


def _duotone(pixels: np.ndarray, dark: tuple, light: tuple) -> np.ndarray:
    grey = _luminance(pixels)[..., None] / 255
    return np.array(dark, np.float32) * (1 - grey) + np.array(light, np.float32) * grey


def _tint(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Keep light and shade, take the colour: dark shade, colour, near white by luminance."""
    grey = (_luminance(pixels) / 255)[..., None]
    middle = np.array(colour, np.float32)
    low = middle * (0.25 + 1.5 * grey)
    high = middle + (255 - middle) * (grey - 0.5) * 1.6
    return np.clip(np.where(grey < 0.5, low, high), 0, 255)


def _stylise(pixels: np.ndarray, style: str) -> np.ndarray:
    if style == "sepia":
        return _duotone(pixels, (45, 25, 10), (255, 232, 190))
    if style == "night":
        return _duotone(pixels, (5, 8, 40), (120, 170, 255))
    if style == "negative":
        return 255 - pixels
    if style == "poster":
        return np.floor(np.clip(pixels, 0, 255) / 86) * 127.0
    grey = _luminance(pixels)
    edges = np.abs(np.diff(grey, axis=0, append=grey[-1:])) + np.abs(
        np.diff(grey, axis=1, append=grey[:, -1:])
    )
    return np.repeat(np.clip(250 - 5 * edges, 0, 255)[..., None], 3, -1)
