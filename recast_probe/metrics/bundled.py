"""The two scores that need no download, as metrics."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from recast_probe.metrics.colour import colour_similarity
from recast_probe.metrics.encoder import PADDING, SIZE, WEIGHTS, features, load_encoder
from recast_probe.metrics.masking import IMAGENET_DEVIATION, IMAGENET_MEAN, Mask, isolate
from recast_probe.metrics.metric_types import (
    EncoderMetric,
    ImageMetric,
    Images,
    Masks,
    one_mask_each,
)
from recast_probe.metrics.preparation import in_batches


class MobileNet(EncoderMetric):
    """Cosine of centred MobileNetV2 features, as `IdentityScorer` gives it."""

    name = "mobilenet"

    def embed(self, images: Images, masks: Masks = None) -> np.ndarray:
        """Centred features (n, 1280) of length one; see `recast_probe.metrics.features`."""
        return features(images, masks)

    def provenance(self) -> dict[str, Any]:
        """The shipped file."""
        return {"metric": self.name, "source": WEIGHTS.name}


class RawMobileNet:
    """MobileNetV2's pooled features as they are, not centred and not of length one.

    For distances between distributions, which are defined on the features of the network itself.
    """

    name = "mobilenet"

    def embed(self, images: Images, masks: Masks = None) -> np.ndarray:
        """Features (n, 1280), float32, of the subjects as `isolate` cuts them out."""
        import torch

        network, _ = load_encoder()
        subjects = [
            (isolate(image, mask, SIZE, PADDING) - IMAGENET_MEAN) / IMAGENET_DEVIATION
            for image, mask in zip(images, one_mask_each(images, masks), strict=True)
        ]
        stack = torch.from_numpy(np.stack(subjects)).permute(0, 3, 1, 2).contiguous()
        return in_batches(network, stack).numpy()

    def provenance(self) -> dict[str, Any]:
        """The shipped file."""
        return {"metric": self.name, "source": WEIGHTS.name}


class Colour(ImageMetric):
    """Intersection of Lab histograms, in [0, 1]; see `recast_probe.metrics.colour_similarity`."""

    name = "colour"

    def score(
        self,
        image: Image.Image,
        mask: Mask | None,
        reference: Image.Image,
        reference_mask: Mask | None,
    ) -> float:
        """The share of colour that the two subjects have in common."""
        return colour_similarity(image, mask, reference, reference_mask)

    def provenance(self) -> dict[str, Any]:
        """Nothing but the name: the histogram has no weights."""
        return {"metric": self.name}
