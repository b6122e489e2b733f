"""KID and rFID against the formulas in float64, and where they mean something."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from scipy import linalg
from torch import nn

from recast_probe import metrics
from recast_probe.errors import InputError, MissingPackageError
from recast_probe.metrics.sets import KID, RFID
from tests import tiny_metrics


def kernel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return (first @ second.T / first.shape[1] + 1) ** 3


def kid(first: np.ndarray, second: np.ndarray) -> float:
    """The unbiased estimator for sets of n and m, over all pairs."""
    n, m = len(first), len(second)
    within = [kernel(each, each) for each in (first, second)]
    return (
        (within[0].sum() - np.trace(within[0])) / (n * (n - 1))
        + (within[1].sum() - np.trace(within[1])) / (m * (m - 1))
        - 2 * kernel(first, second).mean()
    )


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    shift = first.mean(0) - second.mean(0)
    spread = [np.cov(each, rowvar=False) for each in (first, second)]
    root = linalg.sqrtm(spread[0] @ spread[1])
    return shift @ shift + np.trace(spread[0] + spread[1] - 2 * root.real)


def pictures(seed: int, count: int, brightness: int = 0, size: int = 12) -> list[Image.Image]:
    random = np.random.default_rng(seed)
    values = random.integers(0, 156, (count, size, size, 3)) + brightness
    return [Image.fromarray(each.astype(np.uint8)) for each in values]


class Means(nn.Module):
    """Mean colour of each quarter: (n, 12)."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        return nn.functional.adaptive_avg_pool2d(images.double() / 255, 2).flatten(1) * 4


def means(images: list[Image.Image]) -> np.ndarray:
    """The same by hand."""
    values = np.stack([np.asarray(each) for each in images]) / 255
    quarters = values.reshape(len(values), 2, 6, 2, 6, 3).mean(axis=(2, 4))
    return 4 * np.moveaxis(quarters, -1, 1).reshape(len(values), -1)


@pytest.fixture(scope="module")
def sets():
    return pictures(0, 60), pictures(1, 60, brightness=20)


def test_kid_is_the_unbiased_formula(sets):
    first, second = (means(each) for each in sets)
    metric = metrics.metric("kid", extractor=Means())
    assert metric.distance(*sets) == pytest.approx(kid(first, second), rel=1e-10)
    assert metric.distance(*sets) == pytest.approx(metric.distance(*sets[::-1]), rel=1e-10)
    assert metric.distance(*sets) > 0.1


def test_rfid_is_the_formula(sets):
    first, second = (means(each) for each in sets)
    metric = metrics.metric("rfid", extractor=Means())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = metric.distance(*sets)
    assert found == pytest.approx(frechet(first, second), rel=1e-8)
    assert metric.distance(sets[0], sets[0]) == pytest.approx(0, abs=1e-6)


def test_shifted_gaussians_have_the_squared_shift_as_distance():
    random = np.random.default_rng(0)
    first = torch.from_numpy(random.normal(size=(4000, 3)))
    second = first + torch.tensor([2.0, 0.0, 1.0])
    assert RFID().between(first, second) == pytest.approx(5, rel=1e-6)


def test_kid_is_unbiased_where_rfid_is_not():
    random = np.random.default_rng(0)
    draws = torch.from_numpy(random.normal(size=(200, 2, 12, 8)))
    kids = [KID().between(*pair) for pair in draws]
    error = np.std(kids) / np.sqrt(len(kids))
    assert abs(np.mean(kids)) < 3 * error
    assert min(kids) < 0
    rfids = [RFID().between(*pair) for pair in draws]
    assert min(rfids) > 1


def test_too_few_images_for_rfid_are_warned_about(sets):
    metric = metrics.metric("rfid", extractor=Means())
    with pytest.warns(UserWarning, match="rfid of 12 images with 12 features"):
        metric.distance(sets[0][:12], sets[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.distance(sets[0][:13], sets[1][:13])
        metrics.metric("kid", extractor=Means()).distance(sets[0][:4], sets[1][:4])


def test_subsets_depend_on_the_seed_alone(sets):
    first, second = sets[0][:20], sets[1]
    state = torch.random.get_rng_state()
    found = [
        metrics.metric("kid", extractor=Means(), seed=seed).distance(first, second)
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1] != found[2]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert found[0] == pytest.approx(kid(means(first), means(second)), rel=0.05)


def test_the_bundled_extractor_sees_subjects(subject, composite):
    sides = [
        [composite(subject(seed, 60), seed=100 * side + seed) for seed in seeds]
        for side, seeds in ((1, range(12)), (2, range(12)), (3, range(12, 24)))
    ]
    (images, masks), (again, again_masks), (others, other_masks) = (
        map(list, zip(*each, strict=True)) for each in sides
    )
    blurred = [each.filter(ImageFilter.GaussianBlur(6)) for each in others]
    metric = metrics.metric("kid")
    likewise = metric.distance(images, others, masks, other_masks)
    assert abs(likewise) < metric.distance(images, blurred, masks, other_masks) / 3
    # the same subjects: masked features are equal, whatever the background
    features = metric.features(images, masks)
    np.testing.assert_allclose(metric.features(again, again_masks), features, atol=1e-5)
    assert np.abs(metric.features(again) - metric.features(images)).max() > 0.1
    assert features.shape == (12, 1280)
    assert features.min() >= 0  # as the network gives them, not centred


def test_an_encoder_metric_is_an_extractor(tmp_path, sets):
    encoder = metrics.metric("dinov2", tiny_metrics.save_dinov2(tmp_path))
    metric = metrics.metric("kid", extractor=encoder)
    first, second = (each[:6] for each in sets)
    masks = [np.ones((12, 12), bool)] * 6
    features = [encoder.embed(each).astype(np.float64) for each in (first, second)]
    assert metric.distance(first, second) == pytest.approx(kid(*features), rel=1e-8)
    assert metric.distance(first, second, masks, masks) != metric.distance(first, second)
    assert metric.provenance()["extractor"]["metric"] == "dinov2"


def test_sets_of_images_of_many_sizes():
    mixed = [*pictures(0, 3), *pictures(1, 3, size=24)]
    found = metrics.metric("kid", extractor=Means()).features(mixed)
    assert found.shape == (6, 12)
    np.testing.assert_allclose(found[:3], means(mixed[:3]), atol=1e-12)


def test_what_cannot_be_compared(sets):
    metric = metrics.metric("kid", extractor=Means())
    with pytest.raises(InputError, match="at least two images"):
        metric.distance(sets[0][:1], sets[1])
    with pytest.raises(InputError, match="at least two images"):
        metric.distance(sets[0][0], sets[1])
    with pytest.raises(InputError, match="whole images only"):
        metric.distance(*sets, [np.ones((12, 12), bool)] * 60)
    with pytest.raises(InputError, match="finite"):
        metrics.metric("kid", extractor=lambda image: torch.tensor([[torch.nan]])).distance(*sets)
    with pytest.raises(InputError, match="neither an encoder nor"):
        metrics.metric("kid", extractor=3)


def test_provenance_names_the_extractor():
    assert metrics.metric("kid").provenance() == {
        "metric": "kid",
        "extractor": {"metric": "mobilenet", "source": "mobilenet_v2_imagenet.safetensors"},
        "seed": 0,
    }
    assert metrics.metric("rfid", extractor=Means()).provenance()["extractor"].endswith("Means")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics", None)
    with pytest.raises(MissingPackageError, match=r"kid needs the package torchmetrics.*pip"):
        metrics.metric("kid")
