"""How much of the reference's subject an image keeps: one number each for shape and colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.metrics.colour import colour_similarity
from recast_probe.metrics.encoder import cosine, features
from recast_probe.metrics.masking import Mask


def retrieve(
    queries: np.ndarray, gallery: np.ndarray, targets: np.ndarray | None = None
) -> np.ndarray:
    """Rank (n,) of each query's own subject among all of the gallery, by cosine; 1 is the best.

    `queries` (n, d), `gallery` (m, d); `targets` (n,) are the gallery rows of the right subjects,
    by default row i for query i. A tie counts against the query, so features that tell nothing
    apart rank last instead of first. Raises InputError when counts or indices disagree.

    Examples:
        >>> retrieve(np.array([[1.0, 0.0], [1.0, 0.1]]), np.array([[1.0, 0.0], [0.0, 1.0]]))
        array([1, 2])
    """
    similarity = cosine(queries, gallery)
    if targets is None:
        if len(queries) != len(gallery):
            raise InputError(
                f"{len(queries)} queries and {len(gallery)} gallery rows: "
                "say with targets which gallery row is right for each query."
            )
        targets = np.arange(len(queries))
    targets = np.asarray(targets)
    if targets.shape != (len(queries),):
        raise InputError(f"targets has shape {targets.shape}, expected ({len(queries)},).")
    if len(targets) and not (targets.min() >= 0 and targets.max() < len(gallery)):
        raise InputError(f"targets must lie in 0..{len(gallery) - 1}, the gallery's rows.")
    own = similarity[np.arange(len(queries)), targets][:, None]
    return (similarity >= own).sum(axis=1)


@dataclass(frozen=True)
class IdentityScorer:
    """Scores images against the reference they were made from.

    With `masked` False the masks are ignored and whole images are compared: then background counts
    as much as the subject, so report it only beside the masked scores.

    Examples:
        >>> image = Image.new("RGB", (32, 32), "red")
        >>> found = IdentityScorer(masked=False).score(image, None, image, None)
        >>> {name: round(value, 3) for name, value in found.items()}
        {'mobilenet': 1.0, 'colour': 1.0}
    """

    masked: bool = True

    def score(
        self,
        image: Image.Image,
        mask: Mask | None,
        reference: Image.Image,
        reference_mask: Mask | None,
    ) -> dict[str, float]:
        """{"mobilenet": cosine in [-1, 1], "colour": histogram intersection in [0, 1]}.

        Masks are arrays (height, width) of their images, or None for the whole image; an output's
        mask has to come from the caller. Raises InputError for an unusable image or mask.
        """
        masks = (mask, reference_mask) if self.masked else (None, None)
        pair = features([image, reference], masks)
        return {
            "mobilenet": float(cosine(pair[:1], pair[1:])[0, 0]),
            "colour": colour_similarity(image, masks[0], reference, masks[1]),
        }

    def retrieve(
        self, queries: np.ndarray, gallery: np.ndarray, targets: np.ndarray | None = None
    ) -> np.ndarray:
        """`recast_probe.metrics.retrieve`: rank of each query's own subject, 1 is the best."""
        return retrieve(queries, gallery, targets)


def identity_score(
    image: Image.Image,
    mask: Mask | None,
    reference: Image.Image,
    reference_mask: Mask | None,
) -> dict[str, float]:
    """`IdentityScorer().score`: masked MobileNetV2 cosine and masked colour similarity.

    Raises:
        InputError: an image or a mask that cannot be used.

    Examples:
        >>> red, blue = (Image.new("RGB", (32, 32), each) for each in ("red", "blue"))
        >>> identity_score(red, None, blue, None)["colour"]
        0.0
    """
    return IdentityScorer().score(image, mask, reference, reference_mask)
