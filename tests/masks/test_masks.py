"""Masks that nobody drew: found, refined, checked, and refused clearly."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from recast_probe import pocket
from recast_probe.errors import InputError
from recast_probe.masks import (
    GrabCut,
    OncePerImage,
    U2NetP,
    find_mask,
    finder_name,
    mask_finder,
    u2net,
)


def overlap(found: np.ndarray, true: np.ndarray) -> float:
    return float((found & true).sum() / (found | true).sum())


@pytest.fixture(scope="module")
def network() -> U2NetP:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("cv2")
    return U2NetP()


def disc(width: int = 160, height: int = 96, spot=(40, 50), radius: int = 24):
    """A red disc on a green field with soft noise, and its mask."""
    rows, columns = np.mgrid[:height, :width]
    inside = (rows - spot[0]) ** 2 + (columns - spot[1]) ** 2 < radius**2
    pixels = np.where(inside[..., None], [200, 40, 30], [60, 140, 70])
    noise = np.random.default_rng(0).integers(-12, 13, (height, width, 3))
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8)), inside


def test_subjects_of_the_samples_are_found(network):
    """On 24 composites the mean is 0.88 and the median 0.96; six keep the test short."""
    scores: dict[str, list[float]] = {"alone": [], "refined": []}
    for sample in pocket.samples()[1::4]:
        soft = network(sample.image)
        scores["alone"].append(overlap(soft > 0.5, sample.mask))
        refined = find_mask(sample.image, GrabCut(lambda image, soft=soft: soft))
        scores["refined"].append(overlap(refined, sample.mask))
    for found in scores.values():
        assert np.median(found) > 0.92
        assert np.mean(found) > 0.8
    assert np.median(scores["refined"]) >= np.median(scores["alone"])


def test_a_mask_has_the_shape_of_its_image_and_is_repeatable(network):
    image, inside = disc()
    refined = GrabCut(network)
    found = find_mask(image, refined)
    assert found.shape == inside.shape
    assert found.dtype == bool
    assert overlap(found, inside) > 0.9
    np.testing.assert_array_equal(found, find_mask(image, refined))
    soft = network(image)
    assert soft.min() == 0
    assert soft.max() == 1
    assert network.probabilities(image).max() <= 1


def test_nothing_is_found_where_nothing_stands_out(network):
    flat = Image.new("RGB", (90, 60), (90, 120, 60))
    assert not find_mask(flat, GrabCut(network)).any()


def test_grabcut_draws_a_blurred_mask_to_the_edge():
    pytest.importorskip("cv2")
    image, inside = disc(radius=30)
    rows, columns = np.mgrid[: image.height, : image.width]
    # a guess that is too small and off the centre
    soft = 1 / (1 + np.exp((np.hypot(rows - 44, columns - 56) - 22) / 5))
    assert overlap(soft > 0.5, inside) < 0.6
    finder = GrabCut(lambda image: soft.astype(np.float32), inside=0.95, agreement=0.3)
    assert overlap(find_mask(image, finder), inside) > 0.97


def test_a_refinement_that_runs_away_is_dropped():
    pytest.importorskip("cv2")
    image, inside = disc()
    wrong = np.zeros(inside.shape, np.float32)
    wrong[60:90, 100:150] = 0.6  # all field: nothing there to tell from the rest
    wrong[70:75, 120:130] = 0.95
    kept = find_mask(image, GrabCut(lambda image: wrong, agreement=0.9))
    np.testing.assert_array_equal(kept, wrong > 0.5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_grabcut_without_an_inside_or_an_outside_changes_nothing(value):
    pytest.importorskip("cv2")
    image, inside = disc()
    guess = np.full(inside.shape, value, np.float32)
    assert (find_mask(image, GrabCut(lambda image: guess)) == bool(value)).all()


def test_two_flat_colours_are_cut_too():
    pytest.importorskip("cv2")
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[10:30, 10:30] = [255, 0, 0]
    guess = np.zeros((40, 40), np.float32)
    guess[11:29, 11:29] = 0.95
    found = find_mask(Image.fromarray(pixels), GrabCut(lambda image: guess))
    assert overlap(found, pixels[..., 0] > 0) > 0.8


def test_any_callable_finds_masks():
    image, inside = disc()

    def reddish(image: Image.Image) -> np.ndarray:
        pixels = np.asarray(image).astype(int)
        return pixels[..., 0] > pixels[..., 1]

    np.testing.assert_array_equal(find_mask(image, reddish), inside)
    assert finder_name(reddish).endswith("reddish")
    np.testing.assert_array_equal(find_mask(image, lambda image: inside * 0.75), inside)


def test_an_image_is_searched_once_until_others_came():
    asked = []

    def finder(image: Image.Image) -> np.ndarray:
        asked.append(image.getpixel((0, 0)))
        return np.full((image.height, image.width), image.getpixel((0, 0)) > 100)

    remembering = OncePerImage(finder, images=2)
    images = [Image.new("L", (3, 2), value) for value in (0, 150, 200)]
    for index in (0, 1, 0, 0, 2, 0, 1):
        assert (remembering(images[index].copy()) == (index > 0)).all()
    assert asked == [0, 150, 200, 150]
    assert finder_name(remembering) == finder_name(finder)


@pytest.mark.parametrize(
    ("finder", "message"),
    [
        (lambda image: np.zeros((3, 3)), r"shape \(3, 3\) for an image of height 96 and width 160"),
        (lambda image: np.full((96, 160), 255), "values from 255.0 to 255.0"),
        (lambda image: np.full((96, 160), np.nan), "values from nan to nan"),
    ],
)
def test_what_is_no_mask_is_refused(finder, message):
    with pytest.raises(InputError, match=message):
        find_mask(disc()[0], finder)


def test_finders_have_names(network):
    assert mask_finder("none") is None
    for name in ("u2netp", "u2netp+grabcut"):
        assert finder_name(mask_finder(name)) == name
    with pytest.raises(InputError, match=r"no mask finder 'sam'; there is u2netp\+grabcut, u2netp"):
        mask_finder("sam")


def test_other_weights_are_refused(network, tmp_path, monkeypatch):
    u2net._session.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(u2net, "WEIGHTS", tmp_path / "u2netp.onnx")
        with pytest.raises(InputError, match="cannot be read"):
            U2NetP()
        (tmp_path / "u2netp.onnx").write_bytes(u2net.__doc__.encode())
        with pytest.raises(InputError, match="SHA-256 differs"):
            U2NetP()
    assert find_mask(disc()[0], U2NetP()).any()


@pytest.mark.parametrize(
    ("module", "package"), [("onnxruntime", "onnxruntime"), ("cv2", "opencv-python-headless")]
)
def test_a_missing_package_names_the_extra(module, package):
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from recast_probe.masks import mask_finder\n"
        "from recast_probe.errors import InputError\n"
        "try: mask_finder('u2netp+grabcut')\n"
        "except InputError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if module == "cv2":
        pytest.importorskip("onnxruntime")
    assert package in run.stdout, run.stderr
    assert "-e '.[masks]'" in run.stdout
