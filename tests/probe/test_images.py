"""Reading images and masks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.images import check_same_shape, image_digest, load_image, load_mask

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
