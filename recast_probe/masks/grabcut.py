"""GrabCut: a soft mask drawn to the colours of the picture (Rother et al., SIGGRAPH 2004)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from recast_probe._utils.optional import need


@dataclass(frozen=True)
class GrabCut:
    """Refines what another finder found; the edges then follow the picture's.

    Colours are modelled in a band between what is surely inside and surely outside. A refinement
    that runs away is dropped: what the other finder found is returned, thresholded at one half.

    Args:
        finder: gives a soft mask, 0..1 (height, width).
        inside, outside: values of it above and below which a pixel is certain.
        rounds: of GrabCut.
        agreement: least intersection over union of the refined mask with the first one.
        longest: side in pixels that the picture is reduced to for the refinement.

    Raises:
        MissingPackageError: opencv-python-headless is missing.

    Examples:
        >>> GrabCut.rounds, GrabCut.agreement
        (3, 0.5)
    """

    finder: Callable[[Image.Image], np.ndarray]
    inside: float = 0.9
    outside: float = 0.05
    rounds: int = 3
    agreement: float = 0.5
    longest: int = 480

    def __post_init__(self) -> None:
        need("cv2", "Finding masks where none are given")

    @property
    def name(self) -> str:
        """Such as "u2netp+grabcut"."""
        return f"{getattr(self.finder, 'name', type(self.finder).__name__)}+grabcut"

    def __call__(self, image: Image.Image) -> np.ndarray:
        """The mask, bool (height, width); all false where the first finder saw nothing."""
        soft = np.asarray(self.finder(image), dtype=np.float32)
        coarse = soft > 0.5
        scale = min(1.0, self.longest / max(image.size))
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        small = np.asarray(Image.fromarray(soft).resize(size, Image.Resampling.BILINEAR))
        refined = self._refine(image.convert("RGB").resize(size, Image.Resampling.LANCZOS), small)
        if refined is None:
            return coarse
        grey = Image.fromarray((refined * 255).astype(np.uint8))
        found = np.asarray(grey.resize(image.size, Image.Resampling.BILINEAR)) > 127
        union = (found | coarse).sum()
        agree = (found & coarse).sum() / union if union else 0.0
        return found if agree >= self.agreement else coarse

    def _refine(self, image: Image.Image, soft: np.ndarray) -> np.ndarray | None:
        """Bool (height, width), or None where there is no inside or no outside to learn from."""
        cv2 = need("cv2", "Finding masks where none are given")
        labels = np.where(soft > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        labels[soft >= self.inside] = cv2.GC_FGD
        labels[soft <= self.outside] = cv2.GC_BGD
        if not (soft > 0.5).any() or not (soft <= 0.5).any():
            return None
        cv2.setRNGSeed(0)  # its colour models start from random clusters
        models = np.zeros((1, 65)), np.zeros((1, 65))
        pixels = np.ascontiguousarray(np.asarray(image)[..., ::-1])
        try:
            cv2.grabCut(pixels, labels, None, *models, self.rounds, cv2.GC_INIT_WITH_MASK)
        except cv2.error:  # fewer colours than clusters, as in a drawing of two flat colours
            return None
        return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
