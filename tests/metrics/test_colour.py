from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from recast_probe.metrics import colour_similarity, lab_histogram, srgb_to_lab

colours = st.tuples(*[st.integers(0, 255)] * 3)


def plain(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (6, 5), colour)


@pytest.mark.parametrize(
    ("colour", "lab"),
    [
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
    ],
)
def test_lab_of_known_colours(colour, lab):
    assert srgb_to_lab(np.array(colour)) == pytest.approx(lab, abs=0.05)


def test_lab_agrees_with_scikit_image():
    color = pytest.importorskip("skimage.color")
    values = np.random.default_rng(0).random((40, 30, 3))
    assert srgb_to_lab(values) == pytest.approx(color.rgb2lab(values), abs=1e-6)


@given(colours, colours)
@settings(max_examples=60, deadline=None)
def test_similarity_is_symmetric_bounded_and_one_for_itself(first, second):
    one, other = plain(first), plain(second)
    value = colour_similarity(one, None, other, None)
    assert 0 <= value <= 1
    assert value == pytest.approx(colour_similarity(other, None, one, None))
    assert colour_similarity(one, None, one, None) == pytest.approx(1)
    assert lab_histogram(one).sum() == pytest.approx(1)


def test_disjoint_colours_share_nothing_and_close_ones_share_much():
    red, blue = plain((230, 20, 20)), plain((20, 20, 230))
    assert colour_similarity(red, None, blue, None) == 0
    assert colour_similarity(red, None, plain((226, 23, 20)), None) > 0.7


def test_half_of_the_colour_in_common_gives_one_half():
    image = Image.new("RGB", (10, 10), (230, 20, 20))
    image.paste((20, 20, 230), (0, 0, 5, 10))
    assert colour_similarity(image, None, plain((230, 20, 20)), None) == pytest.approx(0.5)


def test_only_masked_pixels_count_and_positions_do_not():
    image = Image.new("RGB", (10, 10), (230, 20, 20))
    image.paste((20, 20, 230), (0, 0, 5, 10))
    mask = np.zeros((10, 10), dtype=bool)
    mask[:, 5:] = True
    assert colour_similarity(image, mask, plain((230, 20, 20)), None) == pytest.approx(1)
    shuffled = np.random.default_rng(0).permutation(np.asarray(image).reshape(-1, 3))
    moved = Image.fromarray(shuffled.reshape(10, 10, 3))
    assert colour_similarity(image, None, moved, None) == pytest.approx(1)


def test_a_hue_turn_is_noticed():
    image = Image.fromarray(
        np.random.default_rng(1).integers([150, 20, 20], [250, 90, 90], (20, 20, 3), dtype=np.uint8)
    )
    turned = Image.fromarray(np.asarray(image)[..., [2, 0, 1]])
    assert colour_similarity(image, None, turned, None) < 0.2
