from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.metrics.masking import IMAGENET_MEAN, isolate, mask_weights


def test_background_outside_the_mask_changes_nothing(subject, composite):
    first, mask = composite(subject(1), seed=2, place=(10, 20))
    second, _ = composite(subject(1), seed=3, place=(10, 20))
    assert np.any(np.asarray(first) != np.asarray(second))
    assert np.array_equal(isolate(first, mask), isolate(second, mask))


def test_moving_the_subject_changes_nothing(subject, composite):
    first, first_mask = composite(subject(1), seed=2, place=(0, 0))
    second, second_mask = composite(subject(1), seed=2, place=(31, 17))
    difference = np.abs(isolate(first, first_mask) - isolate(second, second_mask))
    assert difference.max() <= 2 / 255


def test_the_margin_is_grey_and_the_subject_fills_the_rest():
    image = Image.new("RGB", (40, 40), (255, 0, 0))
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:20, 10:20] = True
    cut = isolate(image, mask, size=130, padding=0.15)
    assert np.abs(cut[0, 0] - IMAGENET_MEAN).max() < 0.003
    assert np.array_equal(cut[65, 65], [1, 0, 0])
    red = (cut[65, :, 0] > 0.9) & (cut[65, :, 1] < 0.1)
    assert abs(red.sum() - 100) <= 6


def test_without_a_mask_the_whole_image_is_squared():
    image = Image.new("RGB", (60, 30), (0, 255, 0))
    cut = isolate(image, None, size=60)
    assert np.array_equal(cut[30, 1], [0, 1, 0])
    assert np.abs(cut[2, 30] - IMAGENET_MEAN).max() < 0.003


def test_masks_may_be_boolean_fractions_or_bytes():
    image = Image.new("RGB", (2, 1))
    for mask in ([[True, False]], [[1.0, 0.0]], np.array([[255, 0]], dtype=np.uint8)):
        assert np.array_equal(mask_weights(np.asarray(mask), image), [[1, 0]])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((3, 4), dtype=bool), "height 4 and width 3"),
        (np.zeros((4, 3)), "marks no pixel"),
        (np.full((4, 3), 7.0), r"7 \(100%\)"),
        (np.full((4, 3), np.nan), "not finite"),
    ],
)
def test_unusable_masks_are_explained(mask, message):
    with pytest.raises(InputError, match=message):
        isolate(Image.new("RGB", (3, 4)), mask)


def test_arrays_are_not_images():
    with pytest.raises(InputError, match="PIL image"):
        isolate(np.zeros((4, 4, 3)), None)
