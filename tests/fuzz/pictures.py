"""Pictures: files of six formats, damaged; and odd ones of every kind."""

from __future__ import annotations

import io
import os
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recast_probe.images.loading import load_image
from tests.fuzz.damage import damaged
from tests.fuzz.harness import FuzzClass

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{ } loop showpage\n%%EOF\n"


def drawn(size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    """A picture with structure."""
    return Image.linear_gradient("L").rotate(30).resize(size).convert(mode)


def encoded(image: Image.Image, form: str, **more: Any) -> bytes:
    """The bytes of a picture's file."""
    out = io.BytesIO()
    image.save(out, form, **more)
    return out.getvalue()


def _files(folder: Path, _: Path) -> dict[str, Any]:
    whole = {form: encoded(drawn(), form) for form in FORMATS}
    pixels = {}
    for form, data in whole.items():
        (folder / "whole").write_bytes(data)
        pixels[form] = np.asarray(load_image(folder / "whole"))
    return {"folder": folder, "whole": whole, "pixels": pixels}


def damaged_file(rng: random.Random, state: dict[str, Any]) -> str:
    """A picture's file with damage; a PNG must not become another picture."""
    form = rng.choice(FORMATS)
    data = state["whole"][form]
    if rng.random() < 0.15:
        other = state["whole"][rng.choice(FORMATS)]
        place = rng.randrange(min(len(data), len(other)))
        data = data[:place] + other[place:]
    else:
        data = damaged(data, rng)
    path = state["folder"] / f"picture.{rng.choice(('png', 'jpg', 'xyz'))}"
    path.write_bytes(data)
    found = np.asarray(load_image(path))
    if np.array_equal(found, state["pixels"][form]):
        return "right"
    # only a PNG has checksums that would tell; what precedes the pixels may be another format
    same = form == "PNG" and found.shape == state["pixels"][form].shape
    return "SILENT: a damaged PNG is another picture" if same else "accepted"


def png(width: int, height: int, data: bytes = b"\0" * 64, depth: int = 8, kind: int = 0) -> bytes:
    """A PNG that says what it is told to."""

    def chunk(name: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + crc

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def _folder(folder: Path, _: Path) -> Path:
    return folder


def odd(rng: random.Random, folder: Path) -> str:
    """Something that is hardly a picture, or one of an unusual kind whose pixels are known."""
    return rng.choice((_odd_path, _odd_file, _of_size, _of_mode, _oriented, _pil_object))(
        rng, folder
    )


def _odd_path(rng: random.Random, folder: Path) -> str:
    made = folder / f"odd-{rng.randrange(10**9)}"
    way = rng.randrange(9)
    if way == 0:
        os.mkfifo(made)
    elif way == 1:
        made.symlink_to(made)
    elif way == 2:
        made.mkdir()
    source: Any = rng.choice(
        [made]
        if way < 3
        else [
            *("/dev/zero", "/dev/null", "/dev/stdin", "/proc/self/mem", "a" * 300, "\0", "\ud800"),
            *("https://example.org/a.png", Path("http://example.org/a.png"), "data:image/png;x"),
            *("", ".", "~", "x" * 5000, folder / ("y" * 256), 3, None, b"", [], {}, 1.5, object()),
            *(np.zeros((4, 4, 3), np.uint8), np.zeros(0), Path("\ud800"), "file:///etc/passwd"),
        ]
    )
    if isinstance(source, bytes | list | dict):
        source = object()
    load_image(source)
    return "SILENT: that is no picture"


def _odd_file(rng: random.Random, folder: Path) -> str:
    path = folder / "odd.png"
    contents = (
        EPS,
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%PDF-1.4\n",
        b"",
        b"P6 2 2 255\n" + b"\0" * 12,
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        b"BM" + b"\xff" * 60,
        rng.randbytes(99),
    )
    path.write_bytes(rng.choice(contents))
    load_image(path)
    return "SILENT: that is no picture"


def _of_size(rng: random.Random, folder: Path) -> str:
    sides = (0, 1, 2, 7, 300, 9000, 32_768, 40_000, 2**31 - 1)
    width, height = rng.choice(sides), rng.choice(sides)
    path = folder / "size.png"
    # what is larger must be refused by what its header says
    small = width * height <= 10**7
    path.write_bytes(png(width, height, bytes((width + 1) * height) if small else b""))
    found = load_image(path)
    same = found.size == (width, height) and max(width, height) <= 32_768
    return "right" if same and width * height <= 10**8 else "SILENT: too large"


def _of_mode(rng: random.Random, folder: Path) -> str:
    grey = rng.randrange(256)
    mode = rng.choice(
        (
            "1",
            "L",
            "P",
            "RGB",
            "CMYK",
            "LA",
            "RGBA",
            "YCbCr",
            "HSV",
            "I;16",
            "La",
            "RGBa",
            "LAB",
            "I",
            "F",
            "PA",
            "RGBX",
        )
    )
    plain = Image.new("L", (5, 4), grey)
    if mode == "I;16":
        image = Image.fromarray(np.full((4, 5), grey * 257, np.uint16))
    elif mode == "PA":
        image = plain.convert("P").convert("PA")
    elif mode in ("La", "RGBa"):
        image = plain.convert({"La": "LA", "RGBa": "RGBA"}[mode]).convert(mode)
    elif mode in ("LAB",):
        image = Image.new("LAB", (5, 4), (grey, 128, 128))
    else:
        image = (plain if mode in ("1", "L", "I", "F") else plain.convert("RGB")).convert(mode)
    if mode in ("L", "RGB", "LA", "RGBA") and rng.random() < 0.5:
        path = folder / "mode.png"
        image.save(path)
        found = load_image(path)
    else:
        found = load_image(image)
    if mode in ("1", "P"):  # of other greys than asked for
        return "right"
    if mode == "LAB":
        return "right" if np.ptp(np.asarray(found), axis=-1).max() <= 1 else f"SILENT: {mode}"
    return "right" if abs(np.asarray(found).astype(int) - grey).max() <= 3 else f"SILENT: {mode}"


def _oriented(rng: random.Random, folder: Path) -> str:
    image = drawn((6, 4))
    exif = Image.Exif()
    orientation = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255))
    exif[0x0112] = orientation
    path = folder / "turned.png"
    data = encoded(image, "PNG", exif=exif)
    path.write_bytes(data)
    size = load_image(path).size
    return (
        "right" if size == ((4, 6) if 5 <= orientation <= 8 else (6, 4)) else "SILENT: not turned"
    )


def _pil_object(rng: random.Random, folder: Path) -> str:
    path = folder / "lazy.png"
    way = rng.randrange(5)
    whole = encoded(drawn(), "PNG")
    path.write_bytes(whole if way else whole[: len(whole) // 2])
    if way == 4:
        path.write_bytes(EPS)
    image = Image.open(path)
    if way == 1:
        image.close()
    if way == 2:
        image = Image.new("RGB", (rng.choice((0, 40_000)), rng.choice((0, 1))))
    found = load_image(image)
    return "right" if np.array_equal(np.asarray(found), np.asarray(drawn())) else "SILENT: other"


CLASSES = (
    FuzzClass("pictures, damaged", damaged_file, _files, 1500),
    FuzzClass("pictures, odd", odd, _folder, 700),
)
