"""Places behind the subject: real photo crops and textures drawn from noise, each with a name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

ASSETS = Path(__file__).parent / "assets" / "backgrounds"
CANVAS = 128
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 45, 45),
    "orange": (240, 140, 30),
    "yellow": (245, 215, 60),
    "green": (60, 160, 75),
    "blue": (50, 95, 205),
    "purple": (135, 65, 180),
    "pink": (245, 150, 185),
    "white": (240, 240, 240),
    "black": (28, 28, 32),
}
PHOTOS = {
    "a forest": "forest",
    "the mountains": "mountains",
    "a meadow": "meadow",
    "a sunset": "sunset",
    "dandelions": "dandelions",
    "outer space": "space",
    "a brick wall": "brick",
    "gravel": "gravel",
    "a lawn": "lawn",
    "paint brushes": "brushes",
}
TEXTURES = ("the sky", "snow", "sand", "the sea", "a wooden floor")
PATTERNS = ("stripes", "checks", "dots")


def names() -> list[str]:
    """Every place that `draw` knows."""
    walls = [f"a {colour} wall" for colour in COLOURS]
    patterns = [f"{colour} {pattern}" for pattern in PATTERNS for colour in COLOURS]
    return [*PHOTOS, *TEXTURES, *walls, *patterns]


def choose(rng: np.random.Generator) -> str:
    """A place name: photographs twice as often as textures, walls or patterns."""
    walls = [f"a {colour} wall" for colour in COLOURS]
    patterns = [f"{colour} {pattern}" for pattern in PATTERNS for colour in COLOURS]
    kinds: tuple[list[str], ...] = (list(PHOTOS), list(PHOTOS), list(TEXTURES), walls, patterns)
    return str(rng.choice(kinds[int(rng.integers(len(kinds)))]))


def draw(name: str, rng: np.random.Generator) -> np.ndarray:
    """A fresh background of that name: float32 RGB in 0..255, shape (128, 128, 3)."""
    if name in PHOTOS:
        return _photo_crop(PHOTOS[name], rng)
    if name in TEXTURES:
        return _texture(name, rng)
    if name.endswith(" wall"):
        return _wall(COLOURS[name.split()[1]], rng)
    colour, pattern = name.split()
    return _pattern(pattern, COLOURS[colour], rng)


@lru_cache(maxsize=32)
def _photo(stem: str) -> Image.Image:
    return Image.open(ASSETS / f"{stem}.webp").convert("RGB")


def _photo_crop(stem: str, rng: np.random.Generator) -> np.ndarray:
    photo = _photo(stem)
    side = int(rng.integers(140, min(photo.size) + 1))
    left = int(rng.integers(0, photo.width - side + 1))
    top = int(rng.integers(0, photo.height - side + 1))
    box = (left, top, left + side, top + side)
    crop = photo.resize((CANVAS, CANVAS), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
    pixels = np.asarray(crop, np.float32)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return np.clip(pixels * rng.uniform(0.85, 1.15), 0, 255)


def smooth_noise(rng: np.random.Generator, cells: tuple[int, int]) -> np.ndarray:
    """Bilinear value noise in 0..1, shape (128, 128)."""
    coarse = Image.fromarray((rng.random(cells) * 255).astype(np.uint8))
    fine = coarse.resize((CANVAS, CANVAS), Image.Resampling.BICUBIC)
    return np.asarray(fine, np.float32) / 255


def _blend(low: tuple, high: tuple, amount: np.ndarray) -> np.ndarray:
    a, b = np.array(low, np.float32), np.array(high, np.float32)
    return a + (b - a) * amount[..., None]


def _texture(name: str, rng: np.random.Generator) -> np.ndarray:
    down = np.linspace(0, 1, CANVAS, dtype=np.float32)[:, None].repeat(CANVAS, 1)
    if name == "the sky":
        clouds = smooth_noise(rng, (5, 4)) * 0.6 + smooth_noise(rng, (11, 9)) * 0.4
        return _blend((70, 135, 225), (245, 248, 252), np.clip(clouds * 1.8 - 0.55, 0, 1))
    if name == "snow":
        return _blend((205, 218, 235), (252, 252, 255), smooth_noise(rng, (7, 7)))
    if name == "sand":
        grain = rng.random((CANVAS, CANVAS)).astype(np.float32) * 0.25
        return _blend((205, 165, 105), (240, 210, 155), smooth_noise(rng, (14, 5)) * 0.75 + grain)
    if name == "the sea":
        return _blend((15, 70, 130), (95, 185, 210), smooth_noise(rng, (22, 6)) * 0.6 + down * 0.4)
    planks = (np.arange(CANVAS) // 21)[None, :].repeat(CANVAS, 0)
    tone = smooth_noise(rng, (5, 40)) * 0.5 + (planks * 37 % 5 / 5) * 0.5
    wood = _blend((120, 75, 40), (190, 135, 85), tone)
    wood[:, ::21] *= 0.6
    return wood


def _wall(colour: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    light = 0.8 + 0.3 * smooth_noise(rng, (3, 3))
    return np.clip(np.array(colour, np.float32) * light[..., None], 0, 255)


def _pattern(pattern: str, colour: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    period = int(rng.choice([16, 24, 32]))
    y, x = np.mgrid[0:CANVAS, 0:CANVAS] + int(rng.integers(0, period))
    if pattern == "stripes":
        on = (x // (period // 2)) % 2
    elif pattern == "checks":
        on = (x // (period // 2) + y // (period // 2)) % 2
    else:
        radius = (x % period - period / 2) ** 2 + (y % period - period / 2) ** 2
        on = radius < (period * 0.32) ** 2
    paper = (120, 120, 125) if sum(colour) > 600 else (235, 232, 225)
    return _blend(paper, colour, on.astype(np.float32))
