"""Distances between two pictures of one scene, place by place: SSIM and LPIPS."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from recast_probe._utils.optional import need
from recast_probe.errors import InputError, MissingWeightsError
from recast_probe.metrics.masking import Mask, mask_weights, pixels
from recast_probe.metrics.metric_types import ImageMetric
from recast_probe.metrics.pretrained import weights_digest


class AlignedMetric(ImageMetric):
    """A map of local values, averaged over the picture or over both subjects' places."""

    aligned = True

    def score(
        self,
        image: Image.Image,
        mask: Mask | None,
        reference: Image.Image,
        reference_mask: Mask | None,
    ) -> float:
        """Mean over the picture, or over every pixel that either mask marks.

        Raises InputError when the two pictures differ in size.
        """
        if image.size != reference.size:
            raise InputError(
                f"{self.name} compares pixel with pixel, and the images are {image.size} and "
                f"{reference.size} pixels. Resize one of them, or use a metric of features."
            )
        first, second = pixels(image), pixels(reference)
        marked = [
            mask_weights(each, picture) >= 0.5
            for each, picture in ((mask, image), (reference_mask, reference))
            if each is not None
        ]
        where = np.logical_or.reduce(marked) if marked else None
        return self.compare(first, second, where)

    def compare(self, first: np.ndarray, second: np.ndarray, where: np.ndarray | None) -> float:
        """The value for two arrays (height, width, 3) in 0..1, within `where` (height, width)."""
        raise NotImplementedError


class SSIM(AlignedMetric):
    """Structural similarity, at most 1 (Wang et al., 2004), with the authors' constants.

    A Gaussian window of 11 pixels with deviation 1.5, K1 = 0.01, K2 = 0.03, in each of the three
    colours, then their mean. Without a mask the border of 5 pixels, where the window would reach
    outside, is left out, as in the reference implementation.

    Raises:
        MissingPackageError: scikit-image is not installed.
    """

    name = "ssim"

    def __init__(self) -> None:
        need("skimage", self.name)

    def compare(self, first: np.ndarray, second: np.ndarray, where: np.ndarray | None) -> float:
        """Mean structural similarity. Raises InputError for a picture smaller than the window."""
        from skimage.metrics import structural_similarity

        if min(first.shape[:2]) < 11:
            raise InputError(
                f"SSIM looks at windows of 11 x 11 pixels; the images have {first.shape[:2]}."
            )
        mean, local = structural_similarity(
            first.astype(np.float64),
            second.astype(np.float64),
            data_range=1.0,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        return float(mean if where is None else local[where].mean())

    def provenance(self) -> dict[str, Any]:
        """Nothing but the name: there are no weights."""
        return {"metric": self.name}


class LPIPS(AlignedMetric):
    """Learned perceptual distance (Zhang et al., 2018), version 0.1, by the package lpips.

    Args:
        net: the trunk, "alex" (the authors' choice for comparing pictures), "vgg" or "squeeze".
        device: where it runs.

    Raises:
        MissingPackageError: lpips, or the torchvision that it needs, is not installed.
        MissingWeightsError: the trunk's weights are not here and cannot be downloaded.
    """

    name = "lpips"
    higher_is_better = False

    def __init__(self, net: str = "alex", device: str = "cpu") -> None:
        self.net, self.device = net, device
        self._plain, self._spatial = (_load_lpips(net, each, device) for each in (False, True))

    @torch.inference_mode()
    def compare(self, first: np.ndarray, second: np.ndarray, where: np.ndarray | None) -> float:
        """Distance; within a mask the mean of the map that lpips makes at full size."""
        pair = [
            torch.from_numpy(each * 2 - 1).permute(2, 0, 1)[None].float().to(self.device)
            for each in (first, second)
        ]
        if where is None:
            return float(self._plain(*pair))
        return float(self._spatial(*pair)[0, 0].cpu().numpy()[where].mean())

    def provenance(self) -> dict[str, Any]:
        """The trunk and a digest of all weights."""
        return {
            "metric": self.name,
            "source": f"lpips 0.1, {self.net}",
            "weights": weights_digest(self._plain),
        }


@lru_cache(maxsize=4)
def _load_lpips(net: str, spatial: bool, device: str) -> Any:
    package = need("lpips", LPIPS.name)
    try:
        network = package.LPIPS(net=net, version="0.1", spatial=spatial, verbose=False)
    except Exception as error:  # torchvision raises a different class for every cause
        raise MissingWeightsError(
            f"The trunk {net!r} of LPIPS could not be loaded: {error}. torchvision downloads it "
            "once; be online once, or put its file into torch's hub folder."
        ) from error
    return network.to(device).eval().requires_grad_(False)
