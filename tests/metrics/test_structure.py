"""SSIM against its formula and a second implementation; LPIPS as a wrapper around its package."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn
from torchmetrics.functional.image import structural_similarity_index_measure

from recast_probe import metrics
from recast_probe.errors import InputError, MissingPackageError, MissingWeightsError
from recast_probe.metrics import structure


def pair(size: int = 40) -> tuple[Image.Image, Image.Image]:
    random = np.random.default_rng(0)
    first = ndimage.gaussian_filter(random.random((size, size, 3)), (2, 2, 0)) * 3 - 1
    second = first + random.normal(size=first.shape) * 0.05
    return tuple(
        Image.fromarray((np.clip(each, 0, 1) * 255).astype(np.uint8)) for each in (first, second)
    )


def local_ssim(first: Image.Image, second: Image.Image) -> np.ndarray:
    """The formula in float64: (height, width, 3); borders mirrored."""
    x, y = (np.asarray(each, np.float64) / 255 for each in (first, second))

    def window(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values, (1.5, 1.5, 0), truncate=3.5)

    mean_x, mean_y = window(x), window(y)
    var_x, var_y = window(x * x) - mean_x**2, window(y * y) - mean_y**2
    both = window(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mean_x * mean_y + c1) * (2 * both + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )


def test_ssim_is_the_formula():
    first, second = pair()
    found = metrics.metric("ssim").score(first, None, second, None)
    assert found == pytest.approx(local_ssim(first, second)[5:-5, 5:-5].mean(), abs=1e-7)
    tensors = [
        torch.from_numpy(np.asarray(each) / 255).permute(2, 0, 1)[None] for each in (first, second)
    ]
    # torchmetrics averages over its mirrored border too; inside it the two must agree
    _, local = structural_similarity_index_measure(
        *tensors, data_range=1.0, sigma=1.5, return_full_image=True
    )
    assert found == pytest.approx(float(local[..., 5:-5, 5:-5].mean()), abs=1e-6)
    assert 0.1 < found < 0.99


def test_ssim_of_known_pictures():
    metric = metrics.metric("ssim")
    first, _ = pair()
    assert metric.score(first, None, first, None) == pytest.approx(1)
    # two flat greys: only the means differ
    low, high = (Image.new("RGB", (20, 20), (value,) * 3) for value in (51, 102))
    wanted = (2 * 0.2 * 0.4 + 1e-4) / (0.2**2 + 0.4**2 + 1e-4)
    assert metric.score(low, None, high, None) == pytest.approx(wanted)


def test_masked_ssim_is_the_mean_where_either_mask_is():
    first, second = pair()
    masks = [np.zeros((40, 40), bool) for _ in range(2)]
    masks[0][:10, :10] = True
    masks[1][5:20, 5:20] = True
    local = local_ssim(first, second)
    metric = metrics.metric("ssim")
    found = metric.score(first, masks[0], second, masks[1])
    assert found == pytest.approx(local[masks[0] | masks[1]].mean(), abs=1e-7)
    one = metric.score(first, masks[0], second, None)
    assert one == pytest.approx(local[masks[0]].mean(), abs=1e-7)
    whole = metrics.metric("ssim-whole")
    assert whole.aligned
    assert whole.score(first, masks[0], second, None) == metric.score(first, None, second, None)


def test_pictures_that_cannot_be_laid_over_each_other():
    metric = metrics.metric("ssim")
    with pytest.raises(InputError, match=r"\(40, 40\) and \(30, 30\)"):
        metric.score(pair()[0], None, pair(30)[0], None)
    with pytest.raises(InputError, match="windows of 11 x 11"):
        metric.score(*(Image.new("RGB", (10, 30)), None) * 2)


class Distance(nn.Module):
    """Stands in for lpips.LPIPS: mean squared difference, or its map."""

    def __init__(self, *, net: str, version: str, spatial: bool, verbose: bool) -> None:
        super().__init__()
        if net == "vgg":
            raise OSError("no download")
        assert (version, verbose) == ("0.1", False)
        self.spatial = spatial
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        assert -1 <= first.min() < 0 < first.max() <= 1
        local = (first - second).square().mean(1, keepdim=True)
        return local if self.spatial else local.mean((2, 3), keepdim=True)


@pytest.fixture
def lpips(monkeypatch):
    package = ModuleType("lpips")
    package.LPIPS = Distance
    monkeypatch.setitem(sys.modules, "lpips", package)
    structure._load_lpips.cache_clear()
    yield
    structure._load_lpips.cache_clear()


def test_lpips_gets_pictures_from_minus_one_to_one(lpips):
    first, second = pair()
    difference = (np.asarray(first, np.float64) - np.asarray(second, np.float64)) / 127.5
    local = (difference**2).mean(-1)
    metric = metrics.metric("lpips")
    assert not metric.higher_is_better
    assert metric.score(first, None, second, None) == pytest.approx(local.mean(), rel=1e-5)
    mask = np.zeros((40, 40), bool)
    mask[3:9, 4:30] = True
    assert metric.score(first, mask, second, mask) == pytest.approx(local[mask].mean(), rel=1e-5)
    assert metric.provenance()["source"] == "lpips 0.1, alex"


def test_lpips_without_its_weights_says_so(lpips):
    with pytest.raises(MissingWeightsError, match="'vgg' of LPIPS could not be loaded"):
        metrics.metric("lpips", net="vgg")


@pytest.mark.parametrize(("name", "package"), [("lpips", "lpips"), ("ssim", "skimage")])
def test_missing_packages_are_named(monkeypatch, name, package):
    structure._load_lpips.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=f"needs the package {package}.*pip install"):
        metrics.metric(name)
