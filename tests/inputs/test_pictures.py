"""Which pictures are opened, and what is refused before anything is decoded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.images.loading import load_image, load_mask
from recast_probe.metrics.masking import isolate
from tests.fuzz.pictures import EPS, drawn, encoded, png


@pytest.mark.parametrize("name", ["innocent.png", "open.eps", "none"])
def test_postscript_is_not_run(tmp_path, name, monkeypatch):
    """Also not by a picture that the user opened and did not read yet."""
    monkeypatch.setattr(shutil, "which", lambda *_: pytest.fail("a program was looked for"))
    path = tmp_path / name
    path.write_bytes(EPS)
    for source in (path, Image.open(path)):
        for load in (load_image, load_mask):
            with pytest.raises(InputError, match="PNG, JPEG"):
                load(source)


@pytest.mark.parametrize("form", ["PPM", "SGI", "TGA", "PCX", "JPEG2000"])
def test_other_formats_are_not_opened(tmp_path, form):
    drawn().save(tmp_path / "picture.png", form)
    with pytest.raises(InputError, match="cannot be read as an image"):
        load_image(tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as opened:
        with pytest.raises(InputError, match=f"format {form}|cannot be read"):
            load_image(opened)
        opened.load()
        assert load_image(opened).size == drawn().size


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for source, word in {
        tmp_path / "pipe": "a pipe",
        tmp_path / "loop": "cannot be read",
        "/dev/zero": "a device",
        "a" * 300: "cannot be read",
        "a\0b": "NUL",
        "https://example.org/a.png": "download it first",
        Path("https://example.org/a.png"): "download it first",
        "": "no file",
    }.items():
        for load in (load_image, load_mask):
            with pytest.raises(InputError, match=word):
                load(source)


@pytest.mark.parametrize(
    ("size", "word"),
    [((40_000, 40_000), "too many pixels"), ((32_769, 100), "32769"), ((1, 8000), "1000 times")],
)
def test_sizes_are_refused_before_decoding(tmp_path, size, word):
    (tmp_path / "large.png").write_bytes(png(*size))
    with pytest.raises(InputError, match=word):
        load_image(tmp_path / "large.png")


def test_every_damaged_pixel_of_a_png_is_found(tmp_path):
    whole = encoded(drawn(), "PNG")
    pixels = np.asarray(load_image(drawn()))
    start, path = whole.index(b"IDAT") + 4, tmp_path / "flipped.png"
    for place in range(start, len(whole) - 16, 7):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(InputError, match="cannot be read"):
            load_image(path)
    path.write_bytes(whole)
    np.testing.assert_array_equal(np.asarray(load_image(path)), pixels)


def test_closed_cut_and_other_objects(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(drawn(), "PNG"))
    closed = Image.open(path)
    closed.close()
    with pytest.raises(InputError, match="was closed"):
        load_image(closed)
    with pytest.raises(InputError, match=r"PIL\.Image\.fromarray"):
        load_image(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(InputError, match="0 x 5"):
        load_image(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("mode", ["La", "RGBa", "LAB", "HSV", "YCbCr"])
def test_rarer_modes(mode):
    between = {"La": "LA", "RGBa": "RGBA"}.get(mode, "RGB")
    image = (
        Image.new("LAB", (4, 4), (128, 128, 128))
        if mode == "LAB"
        else Image.new("RGB", (4, 4), (119, 119, 119)).convert(between).convert(mode)
    )
    assert abs(np.asarray(load_image(image)).astype(int) - 119).max() <= 2


def test_16_bits_that_hold_8_are_not_black():
    with pytest.raises(InputError, match="255 of 65,535"):
        load_image(Image.fromarray(np.full((4, 4), 255, np.uint16)))


def test_strips_are_not_scored():
    with pytest.raises(InputError, match="1 x 800 pixels is too narrow"):
        isolate(Image.new("RGB", (1, 800)), None)


def test_what_is_large_is_shrunk_before_it_is_squared(monkeypatch):
    image = drawn((640, 600))
    mask = np.zeros((600, 640), bool)
    mask[100:500, 200:600] = True
    whole = isolate(image, mask)
    monkeypatch.setattr("recast_probe.metrics.masking.LARGEST_CANVAS", 400_000)
    assert abs(isolate(image, mask) - whole).mean() < 0.01
    mask[:] = False
    mask[300, 320] = True  # thinner than the factor
    assert isolate(image, mask).shape == (128, 128, 3)


def test_transparency_stays_where_it_is_asked_for():
    clear, opaque = Image.new("RGBA", (4, 2), (9, 8, 7, 100)), Image.new("RGBA", (4, 2), "red")
    kept = load_image(clear, alpha=True)
    assert (kept.mode, kept.getpixel((0, 0))) == ("RGBA", (9, 8, 7, 100))
    assert load_image(clear).mode == load_image(opaque, alpha=True).mode == "RGB"
