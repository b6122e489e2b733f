"""KID and rFID: how far two collections of outputs lie apart as distributions.

The paper's rFID is taken between pruned and full-model outputs. Only numbers of one extractor can
be compared with each other; none of these is the FID of Inception features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from recast_probe._utils.optional import need
from recast_probe.errors import InputError
from recast_probe.metrics.bundled import RawMobileNet
from recast_probe.metrics.masking import pixels
from recast_probe.metrics.metric_types import Images, Masks, SetMetric

SUBSET = 1000
SUBSETS = 100


@runtime_checkable
class Encoder(Protocol):
    """An extractor that prepares pictures itself, and can cut out the subject."""

    def embed(self, images: Images, masks: Masks = None) -> np.ndarray:
        """Features (n, d)."""


Extractor = Encoder | Callable[[Tensor], Tensor]


class DistributionMetric(SetMetric):
    """A distance between the features of two sets.

    Args:
        extractor: what turns images into features. By default MobileNetV2's pooled features, which
            ship with the package. Any encoder metric, such as `metric("dinov2")`; or any module
            or function from images (n, 3, height, width), uint8, to features (n, d), as
            torchmetrics takes them, which then sees whole images only.
        seed: of the subsets of KID.

    Raises:
        MissingPackageError: torchmetrics is not installed.
    """

    def __init__(self, extractor: Extractor | None = None, *, seed: int = 0) -> None:
        need("torchmetrics", self.name)
        self.extractor: Extractor = RawMobileNet() if extractor is None else extractor
        if not isinstance(self.extractor, Encoder) and not callable(self.extractor):
            raise InputError(f"extractor={extractor!r} is neither an encoder nor a function.")
        self.seed = seed

    def distance(
        self, images_a: Images, images_b: Images, masks_a: Masks = None, masks_b: Masks = None
    ) -> float:
        """Distance between two sets of at least two images each; masks cut out the subjects.

        Raises InputError for fewer images, features that are not finite, or masks with an
        extractor that takes none.
        """
        sets = [self.features(images_a, masks_a), self.features(images_b, masks_b)]
        if sets[0].shape[1] != sets[1].shape[1]:
            raise InputError(
                f"The extractor returns {sets[0].shape[1]} features for one set and "
                f"{sets[1].shape[1]} for the other."
            )
        return self.between(*(torch.from_numpy(each) for each in sets))

    def features(self, images: Images, masks: Masks = None) -> np.ndarray:
        """Features (n, d) of a set, float64."""
        if isinstance(images, Image.Image) or len(images) < 2:
            raise InputError(f"{self.name} compares sets; give at least two images in each.")
        if isinstance(self.extractor, Encoder):
            found = self.extractor.embed(images, masks)
        elif masks is not None and any(mask is not None for mask in masks):
            raise InputError("This extractor takes whole images only; leave the masks out.")
        else:
            found = _rows(self.extractor, images)
        values = np.asarray(found, np.float64)
        if values.ndim != 2 or len(values) != len(images) or not np.isfinite(values).all():
            raise InputError(
                f"The extractor returned features of shape {values.shape} for {len(images)} "
                "images; expected one finite row (d,) for each."
            )
        return values

    def between(self, first: Tensor, second: Tensor) -> float:
        """Distance between features (n, d) and (m, d), float64."""
        raise NotImplementedError

    def provenance(self) -> dict[str, Any]:
        """The extractor and the seed."""
        own = getattr(self.extractor, "provenance", None)
        kind = type(self.extractor)
        named = own() if callable(own) else f"{kind.__module__}.{kind.__qualname__}"
        return {"metric": self.name, "extractor": named, "seed": self.seed}


class KID(DistributionMetric):
    """Squared maximum mean discrepancy with the kernel (x y / d + 1)^3, unbiased.

    Binkowski et al., "Demystifying MMD GANs" (2018). Unbiased at any number of images, so it may
    fall a little below zero for equal distributions. Up to 1,000 images a set all pairs are used
    (of sets of different sizes, as many as the smaller has, in random subsets); with more, the
    mean over 100 random subsets of 1,000, as published.
    """

    name = "kid"

    def between(self, first: Tensor, second: Tensor) -> float:
        """The mean over subsets; torchmetrics computes it in float64."""
        size = min(len(first), len(second), SUBSET)
        subsets = 1 if len(first) == len(second) == size else SUBSETS
        metric = _torchmetrics("kid", first, subsets=subsets, subset_size=size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return float(_computed(metric, first, second)[0])


class RFID(DistributionMetric):
    """Frechet distance of two Gaussians fitted to the features (Heusel et al., 2017).

    Biased upwards, the more so the fewer images there are: with no more images than features
    the covariances have no full rank, and a warning says so. Use KID there.
    """

    name = "rfid"

    def between(self, first: Tensor, second: Tensor) -> float:
        """The distance; torchmetrics computes it in float64."""
        fewest, width = min(len(first), len(second)), first.shape[1]
        if fewest <= width:
            warnings.warn(
                f"rfid of {fewest} images with {width} features each: with no more images than "
                "features it is mostly bias. Use kid, or more images.",
                stacklevel=3,
            )
        return float(_computed(_torchmetrics("fid", first), first, second))


class _AsTheyAre(nn.Module):
    """Hands features through where torchmetrics expects a network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features


def _torchmetrics(kind: str, features: Tensor, **settings: Any) -> Any:
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    chosen = {"fid": FrechetInceptionDistance, "kid": KernelInceptionDistance}[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that features are kept in memory
        return chosen(feature=_AsTheyAre(features.shape[1]), **settings)


def _computed(metric: Any, first: Tensor, second: Tensor) -> Any:
    metric.update(first, real=True)
    metric.update(second, real=False)
    return metric.compute()


@torch.inference_mode()
def _rows(extractor: Callable[[Tensor], Tensor], images: Images) -> np.ndarray:
    """Features of whole images, one image at a time, since sizes may differ."""
    found = []
    for image in images:
        values = torch.from_numpy(np.rint(pixels(image) * 255).astype(np.uint8))
        row = extractor(values.permute(2, 0, 1)[None])
        found.append(torch.as_tensor(row).detach().double().cpu().reshape(1, -1).numpy())
    return np.concatenate(found)
