"""Reading images and masks."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import recast_probe as rp
from recast_probe.errors import InputError
from recast_probe.images.loading import check_same_shape, image_digest, load_image, load_mask
from recast_probe.testing import tiny_qwen

ORIENTATION = 0x0112


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[0, 0] = [255, 0, 0]
    pixels[3, 5] = [0, 0, 255]
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1))])
def test_the_exif_orientation_is_applied(picture, tmp_path, orientation, corner):
    """6 is a camera held upright: the stored top left corner belongs to the top right."""
    exif = picture.getexif()
    exif[ORIENTATION] = orientation
    picture.save(tmp_path / "photo.png", exif=exif)
    pixels = np.asarray(load_image(tmp_path / "photo.png"))
    assert pixels.shape == ((6, 4, 3) if orientation == 6 else (4, 6, 3))
    np.testing.assert_array_equal(pixels[corner], [255, 0, 0])
    with Image.open(tmp_path / "photo.png") as opened:
        np.testing.assert_array_equal(np.asarray(load_image(opened)), pixels)


def test_transparency_becomes_white(picture):
    layer = picture.convert("RGBA")
    layer.putalpha(Image.fromarray(np.repeat([[0], [255], [255], [255]], 6, 1).astype(np.uint8)))
    pixels = np.asarray(load_image(layer))
    assert (pixels[0] == 255).all()
    assert pixels.shape == (4, 6, 3)
    np.testing.assert_array_equal(pixels[3, 5], [0, 0, 255])
    palette = picture.quantize(4)
    palette.info["transparency"] = palette.getpixel((5, 3))
    assert (np.asarray(load_image(palette))[3, 5] == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "P", "LA", "I;16"])
def test_every_mode_becomes_rgb(mode):
    grey = np.full((3, 5), 128, dtype=np.uint8)
    image = (
        Image.fromarray(grey.astype(np.uint16) * 256)
        if mode == "I;16"
        else Image.fromarray(grey).convert("RGB").convert(mode)
    )
    loaded = load_image(image)
    assert loaded.mode == "RGB"
    assert loaded.size == (5, 3)
    if mode not in ("1", "P"):
        assert abs(np.asarray(loaded).astype(int) - 128).max() <= 2


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_range_are_refused(mode):
    image = Image.new(mode, (4, 4))
    with pytest.raises(InputError, match="reference image has 32-bit pixels"):
        load_image(image)
    with pytest.raises(InputError, match="mask has 32-bit pixels"):
        load_mask(image)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_a_cmyk_file_keeps_its_colours(tmp_path, suffix):
    red = Image.new("RGB", (16, 16), (200, 30, 40))
    red.convert("CMYK").save(tmp_path / f"photo.{suffix}")
    with Image.open(tmp_path / f"photo.{suffix}") as stored:
        assert stored.mode == "CMYK"
    pixels = np.asarray(load_image(tmp_path / f"photo.{suffix}")).astype(int)
    assert abs(pixels - [200, 30, 40]).max() < 8


def bomb(path, side):
    """A PNG of a few bytes that says it is `side` pixels wide and high."""

    def chunk(kind, data):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b""))


@pytest.mark.parametrize("side", [10_000, 30_000])
def test_a_decompression_bomb_is_refused_before_it_goes_off(tmp_path, side):
    """PIL only warns of the smaller one."""
    bomb(tmp_path / "bomb.png", side)
    with pytest.raises(InputError, match="too many pixels"):
        load_image(tmp_path / "bomb.png")
    with pytest.raises(InputError, match=r"The mask: .*too many pixels"):
        load_mask(tmp_path / "bomb.png")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif"])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_file_is_an_image_or_an_error_for_people(tmp_path, suffix, data):
    path = tmp_path / f"photo.{suffix}"
    exif = {"exif": Image.Exif()} if suffix in ("png", "jpg", "webp", "tif") else {}
    for each in exif.values():
        each[ORIENTATION] = 6
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(path, **exif)
    damaged = bytearray(path.read_bytes())
    places = st.integers(0, len(damaged) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged[: data.draw(places)])
    try:
        mode = load_image(path).mode
    except InputError:
        return
    assert mode == "RGB"


def test_an_empty_file_and_a_folder_are_refused(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(InputError, match="cannot be read as an image"):
        load_image(tmp_path / "photo.jpg")
    with pytest.raises(InputError, match=r"there is no file .* but a folder"):
        load_image(tmp_path)


def test_a_file_is_closed_and_the_image_stays(picture, tmp_path):
    path = tmp_path / "photo.png"
    picture.save(path)
    loaded = load_image(str(path))
    path.unlink()
    np.testing.assert_array_equal(np.asarray(loaded), np.asarray(picture))


def test_masks_of_every_kind(tmp_path):
    inside = np.zeros((4, 6), dtype=bool)
    inside[1:3, 2:5] = True
    as_image = Image.fromarray((inside * 255).astype(np.uint8))
    as_image.save(tmp_path / "mask.png")
    cut_out = Image.new("RGBA", (6, 4), "black")
    cut_out.putalpha(as_image)
    opaque = as_image.convert("RGBA")
    sources = [inside, inside * 255, inside.astype(float), as_image, tmp_path / "mask.png"]
    for source in [*sources, cut_out, opaque, as_image.convert("1")]:
        mask = load_mask(source)
        assert mask.dtype == np.float32
        np.testing.assert_array_equal(mask, inside)


@pytest.mark.parametrize("size", [(60, 40), (600, 400), (599, 400), (30, 20)])
def test_masks_of_the_same_shape(size):
    check_same_shape(np.zeros(size[::-1]), Image.new("RGB", (60, 40)))


@pytest.mark.parametrize("size", [(40, 60), (60, 60), (61, 40)])
def test_masks_of_another_shape(size):
    with pytest.raises(InputError, match=f"{size[0]} x {size[1]} pixels and the image 60 x 40"):
        check_same_shape(np.zeros(size[::-1]), Image.new("RGB", (60, 40)))


def test_the_digest_knows_pixels_and_size(picture):
    digest = image_digest(picture)
    assert digest == image_digest(picture.copy())
    assert len(digest) == 64
    assert digest != image_digest(picture.transpose(Image.Transpose.ROTATE_180))
    assert image_digest(Image.new("RGB", (2, 3))) != image_digest(Image.new("RGB", (3, 2)))


def test_transparency_reaches_pipelines_that_read_it(probe):
    clear = Image.new("RGBA", (64, 64), (9, 8, 7, 0))
    layered = rp.Probe(tiny_qwen.build_layered())
    found = [
        each.pipeline_arguments(clear, "a fox", 2)["image"].getpixel((5, 5))
        for each in (probe, layered)
    ]
    assert found == [(255, 255, 255), (9, 8, 7, 0)]
