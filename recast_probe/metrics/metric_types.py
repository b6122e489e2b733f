"""What every metric is: a name, a direction, and one function that returns a number.

Image metrics compare an image with the reference it was made from, text metrics an image with its
prompt, set metrics two collections of images. `recast_probe.metrics.metric` makes them by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.metrics.encoder import cosine
from recast_probe.metrics.masking import Mask

Images = Sequence[Image.Image]
Masks = Sequence[Mask | None] | None


class Metric(ABC):
    """A named number about images.

    Attributes:
        name: its name in tables, and in `recast_probe.metrics.metric`.
        higher_is_better: False for distances.

    Examples:
        >>> rp.metrics.metric("colour").higher_is_better
        True
    """

    name: str
    higher_is_better: bool = True

    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """What the numbers depend on beside the images, ready for JSON."""

    def __repr__(self) -> str:
        source = getattr(self, "source", None)
        return f"{type(self).__name__}({'' if source is None else repr(source)})"


class ImageMetric(Metric):
    """Compares an image with its reference.

    Attributes:
        aligned: True where pixels are compared place by place, so that it only makes sense between
            two pictures of one scene, such as a pruned and the full run's output.

    Examples:
        >>> red = Image.new("RGB", (32, 32), "red")
        >>> round(rp.metrics.metric("colour").score(red, None, red, None), 6)
        1.0
    """

    aligned: bool = False

    @abstractmethod
    def score(
        self,
        image: Image.Image,
        mask: Mask | None,
        reference: Image.Image,
        reference_mask: Mask | None,
    ) -> float:
        """The number for one pair.

        Masks are arrays (height, width) of their images that mark the subject, or None for the
        whole image. Raises InputError for an image or a mask that cannot be used.
        """


class EncoderMetric(ImageMetric):
    """Cosine of the features of the two subjects, in [-1, 1].

    Examples:
        >>> class MeanColour(EncoderMetric):
        ...     name = "mean-colour"
        ...     def embed(self, images, masks=None):
        ...         return np.array([np.asarray(image).mean((0, 1)) for image in images])
        ...     def provenance(self):
        ...         return {"metric": self.name}
        >>> red, dark = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "maroon")
        >>> MeanColour().score(red, None, dark, None)
        1.0
    """

    @abstractmethod
    def embed(self, images: Images, masks: Masks = None) -> np.ndarray:
        """Features (n, d), float32; a row of NaN where an image has none."""

    def score(
        self,
        image: Image.Image,
        mask: Mask | None,
        reference: Image.Image,
        reference_mask: Mask | None,
    ) -> float:
        """Cosine between image and reference, each within its mask; NaN where one has none."""
        pair = self.embed([image, reference], [mask, reference_mask])
        return float(cosine(pair[:1], pair[1:])[0, 0])


class TextMetric(Metric):
    """Compares an image with a text.

    Examples:
        >>> class Words(TextMetric):
        ...     name = "words"
        ...     def score_text(self, image, prompt):
        ...         return float(len(prompt.split()))
        ...     def provenance(self):
        ...         return {"metric": self.name}
        >>> Words().score_text(Image.new("RGB", (4, 4)), "a red fox")
        3.0
    """

    @abstractmethod
    def score_text(self, image: Image.Image, prompt: str) -> float:
        """The number for one image, as a whole, and one prompt."""


class SetMetric(Metric):
    """Compares two collections of images that need not be paired.

    Examples:
        >>> class Count(SetMetric):
        ...     name = "count"
        ...     def distance(self, images_a, images_b, masks_a=None, masks_b=None):
        ...         return float(abs(len(images_a) - len(images_b)))
        ...     def provenance(self):
        ...         return {"metric": self.name}
        >>> Count().distance([Image.new("RGB", (4, 4))], []), Count().higher_is_better
        (1.0, False)
    """

    higher_is_better = False

    @abstractmethod
    def distance(
        self, images_a: Images, images_b: Images, masks_a: Masks = None, masks_b: Masks = None
    ) -> float:
        """Distance between the two distributions; it is symmetric."""


class Whole(ImageMetric):
    """An image metric that ignores masks; its name is the metric's with "-whole".

    Whole images are what published numbers compare; background then counts as much as the subject.
    """

    def __init__(self, metric: ImageMetric) -> None:
        self.metric = metric
        self.name = f"{metric.name}-whole"
        self.higher_is_better, self.aligned = metric.higher_is_better, metric.aligned

    def __repr__(self) -> str:
        return f"Whole({self.metric!r})"

    def score(
        self,
        image: Image.Image,
        mask: Mask | None,
        reference: Image.Image,
        reference_mask: Mask | None,
    ) -> float:
        """The metric's score of whole images; both masks are ignored."""
        return self.metric.score(image, None, reference, None)

    def provenance(self) -> dict[str, Any]:
        """The metric's, under this name."""
        return self.metric.provenance() | {"metric": self.name}


def one_mask_each(images: Images, masks: Masks) -> list[Mask | None]:
    """As many masks as images, None for whole images. Raises InputError when counts disagree."""
    if isinstance(images, Image.Image):
        raise InputError("A list of images is needed; put the one image into a list.")
    chosen: list[Mask | None] = [None] * len(images) if masks is None else list(masks)
    if len(chosen) != len(images):
        raise InputError(f"{len(images)} images but {len(chosen)} masks: give one mask an image.")
    return chosen
