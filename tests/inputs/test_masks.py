"""One reading of masks, at every entry point."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from recast_probe import rank
from recast_probe.diagnostics import mask_to_grid
from recast_probe.errors import InputError
from recast_probe.images.loading import load_mask
from recast_probe.layout import Grid
from recast_probe.metrics.masking import mask_weights


def disc() -> np.ndarray:
    image = Image.new("L", (96, 96))
    ImageDraw.Draw(image).ellipse((20, 30, 70, 80), fill=255)
    return np.asarray(image) > 0


INSIDE = disc()
GREY = Image.fromarray(INSIDE.astype(np.uint8) * 255)


def palette(*colours: int) -> Image.Image:
    image = Image.fromarray(INSIDE.astype(np.uint8), mode="P")
    image.putpalette([*colours] + [0] * (768 - len(colours)))
    return image


def labels(subject: int, other: int, border: int) -> np.ndarray:
    found = np.where(INSIDE, subject, 0).astype(np.uint8)
    found[2:20, 5:60] = other
    edge = np.asarray(GREY.filter(ImageFilter.FIND_EDGES)) > 0
    found[edge] = border
    return found


@pytest.mark.parametrize(
    "source",
    [
        INSIDE,
        INSIDE.astype(np.uint8),
        INSIDE.astype(np.uint16) * 255,
        INSIDE.astype(np.int64) * 255,
        INSIDE.astype(np.uint16) * 65535,
        INSIDE.astype(np.float32),
        INSIDE * 255.0,
        INSIDE.astype(np.uint8) * 200,
        Image.fromarray(INSIDE.astype(np.uint8)),
        Image.fromarray(INSIDE.astype(np.uint16) * 65535),
        Image.fromarray(INSIDE.astype(np.uint16) * 255),
        GREY.convert("1"),
        GREY.convert("CMYK"),
        GREY.convert("P"),
        palette(255, 255, 255, 255, 255, 255, 0, 0, 0).point(lambda value: 2 - 2 * value),
        palette(0, 0, 0, 255, 255, 255),
    ],
)
def test_two_values_are_read_exactly(source, tmp_path):
    np.testing.assert_array_equal(load_mask(source), INSIDE)
    if isinstance(source, Image.Image):
        source.save(tmp_path / "mask.tif")
        np.testing.assert_array_equal(load_mask(tmp_path / "mask.tif"), INSIDE)
    else:
        np.testing.assert_array_equal(mask_weights(source, GREY), INSIDE)
        np.testing.assert_array_equal(mask_to_grid(source, Grid(96, 96)), INSIDE)


@pytest.mark.parametrize("quality", [20, 40, 50, 75, 95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lossy_and_smoothed_outlines(tmp_path, quality, mode):
    GREY.convert(mode).save(tmp_path / "mask.jpg", quality=quality)
    assert ((load_mask(tmp_path / "mask.jpg") > 0.5) != INSIDE).mean() < 0.01
    with Image.open(tmp_path / "mask.jpg") as opened:
        assert ((load_mask(opened) > 0.5) != INSIDE).mean() < 0.01
    soft = np.asarray(GREY.filter(ImageFilter.GaussianBlur(3)))
    np.testing.assert_array_equal(load_mask(soft), soft / np.float32(255))
    # a share of a pixel is one in floats, whatever its largest value
    np.testing.assert_array_equal(load_mask(INSIDE * 0.75), INSIDE * np.float32(0.75))


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (labels(15, 7, 255), r"15 \("),
        (labels(1, 2, 255), r"255 \("),
        (labels(15, 7, 0), r"7 \("),
        (labels(128, 192, 255), r"128 \("),
        (np.where(INSIDE, 255, 128), r"128 \("),
        (INSIDE.astype(np.uint8) * 15, r"15 \("),
        (INSIDE * 2, r"2 \("),
        (INSIDE * 2.0, r"2 \("),
        (INSIDE.astype(np.uint16) * 4095, r"4095 \("),
        (np.where(INSIDE, 245, 10), r"10 \("),
        (np.where(INSIDE, 2, 1), r"1 \("),
        (np.where(INSIDE, 1.0, -1.0), "-1"),
        (np.where(INSIDE, np.nan, 0), "not finite"),
        (np.random.default_rng(0).integers(0, 256, (96, 96)), "between black and white"),
        (np.array([["a", "b"]]), "<U1"),
        (np.array([[None, 1]]), "object"),
        (palette(0, 0, 0, 128, 0, 0), "#800000"),
        (Image.fromarray(INSIDE[..., None] * np.array([0, 255, 0], np.uint8)), "#00ff00"),
        (Image.fromarray(INSIDE.astype(np.uint8) * 15), r"15 \("),
        (np.zeros((4, 4)), "no pixel"),
        (np.zeros((4, 4), np.uint8), "no pixel"),
        (np.full((4, 4), 255), "every pixel"),
        (np.ones((4, 4), bool), "every pixel"),
    ],
)
def test_what_does_not_say_its_inside_is_refused_with_what_was_found(source, value):
    with pytest.raises(InputError, match=value):
        load_mask(source)


def test_the_inside_can_be_named():
    found = labels(15, 7, 255)
    for inside in (15, "15", 15.0):
        np.testing.assert_array_equal(load_mask(found, inside), found == 15)
    green = Image.fromarray(INSIDE[..., None] * np.array([0, 255, 0], np.uint8))
    for source, inside in ((green, "#00ff00"), (green, "lime"), (palette(0, 0, 0, 128, 0, 0), 1)):
        np.testing.assert_array_equal(load_mask(source, inside), INSIDE)
    with pytest.raises(InputError, match=r"no value 9; it has 0 \("):
        load_mask(found, 9)
    with pytest.raises(InputError, match="no pixel of the colour #0000ff"):
        load_mask(green, "blue")
    with pytest.raises(InputError, match="neither a pixel's value"):
        load_mask(green, "the fox")


@pytest.mark.parametrize("corner", [0, 10])
@pytest.mark.parametrize("quality", [25, 40, 60])
def test_a_jpeg_whose_black_is_no_zero(tmp_path, quality, corner):
    inside = np.zeros((200, 300), bool)
    inside[40:161, 61 + corner : 200] = True
    Image.fromarray(inside).convert("L").save(tmp_path / "mask.jpg", quality=quality)
    found = load_mask(tmp_path / "mask.jpg") > 0.5
    assert (found != inside).mean() < 0.01


@pytest.mark.parametrize("smooth", [0, 1])
def test_black_and_white_with_alpha_is_ambiguous(smooth):
    layer = GREY.filter(ImageFilter.GaussianBlur(smooth)).convert("RGBA")
    layer.putalpha(Image.linear_gradient("L").resize(layer.size))
    with pytest.raises(InputError, match="alpha channel too"):
        load_mask(layer)


@pytest.mark.parametrize(("value", "part"), [(True, "every"), (False, "no")])
def test_an_oracle_of_nothing(value, part):
    with pytest.raises(InputError, match=f"{part} one of its 6 tokens"):
        rank.mask_oracle(np.full((2, 3), value))


def test_masked_out_entries_are_neither_inside_nor_outside():
    values = np.ma.masked_array(np.eye(4), np.tri(4, k=-2))
    for read in (load_mask, lambda each: mask_to_grid(each, Grid(2, 2))):
        with pytest.raises(InputError, match="masked"):
            read(values)
