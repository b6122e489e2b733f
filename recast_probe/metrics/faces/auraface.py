"""AuraFace: cosine of face embeddings, for subjects with a face."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.metrics.encoder import cosine
from recast_probe.metrics.faces.alignment import SIZE, align
from recast_probe.metrics.faces.detection import Face, FaceDetector
from recast_probe.metrics.faces.onnx_file import OnnxFile
from recast_probe.metrics.masking import Mask, mask_weights
from recast_probe.metrics.metric_types import EncoderMetric, Images, Masks, one_mask_each
from recast_probe.metrics.pretrained import hub_file, source_name

SOURCE = "fal/AuraFace-v1"
DETECTION = "scrfd_10g_bnkps.onnx"
RECOGNITION = "glintr100.onnx"
FILES: tuple[str, ...] = (DETECTION, RECOGNITION)


class AuraFace(EncoderMetric):
    """Cosine of two faces' embeddings: detected, aligned to the ArcFace template, embedded.

    Of several faces the largest counts; with a mask, the largest whose middle lies in it. The mask
    only chooses the face: detection and embedding see the picture as it is. Where there is no face
    the score is NaN, with a warning.

    Args:
        source: a repository or folder with `scrfd_10g_bnkps.onnx` and `glintr100.onnx`.
        device: "cpu" or "cuda".
        threshold: the least detection score of a face.

    Raises:
        MissingWeightsError: a file is not here and cannot be downloaded.
        MissingPackageError: onnxruntime is not installed.
        InputError: a file is damaged or of another network.

    Examples:
        >>> AuraFace.name, FILES
        ('auraface', ('scrfd_10g_bnkps.onnx', 'glintr100.onnx'))
    """

    name = "auraface"

    def __init__(
        self, source: str | Path = SOURCE, device: str = "cpu", threshold: float = 0.5
    ) -> None:
        self.source = str(source)
        detection, recognition = (hub_file(self.name, source, file) for file in FILES)
        self.detector = FaceDetector(detection, device, threshold)
        self.network = OnnxFile(recognition, device)
        if self.network.outputs != 1 or self.network.input_size not in ((SIZE, SIZE), (None, None)):
            raise InputError(
                f"{recognition.name} is no face recognition network: it takes images of "
                f"{self.network.input_size} and has {self.network.outputs} outputs, not "
                f"{SIZE} x {SIZE} and one."
            )

    def face(self, image: Image.Image, mask: Mask | None = None) -> Face | None:
        """The face that counts, or None where there is none."""
        faces = self.detector.detect(image)
        if mask is not None:
            inside = mask_weights(mask, image) >= 0.5
            faces = [each for each in faces if _holds(inside, each.centre)]
        return max(faces, key=lambda each: each.area, default=None)

    def embed(self, images: Images, masks: Masks = None) -> np.ndarray:
        """Embeddings (n, d), float32, not of length one; a row of NaN without a face."""
        rows = []
        for image, mask in zip(images, one_mask_each(images, masks), strict=True):
            face = self.face(image, mask)
            rows.append(None if face is None else self._embedding(image, face))
        width = next((len(row) for row in rows if row is not None), 1)
        empty = np.full(width, np.nan, np.float32)
        found = [empty if row is None else row for row in rows]
        return np.array(found, np.float32).reshape(len(found), width)

    def _embedding(self, image: Image.Image, face: Face) -> np.ndarray:
        # eight-bit values, mapped to -1..1, as the network was trained
        values = (np.rint(align(image, face.points) * 255) - 127.5) / 127.5
        return self.network(np.moveaxis(values, -1, 0)[None].astype(np.float32))[0].reshape(-1)

    def score(
        self,
        image: Image.Image,
        mask: Mask | None,
        reference: Image.Image,
        reference_mask: Mask | None,
    ) -> float:
        """Cosine of the two faces, in [-1, 1]; NaN, with a warning, where one is not found."""
        pair = self.embed([image, reference], [mask, reference_mask])
        for row, (what, used) in zip(
            pair, {"image": mask, "reference": reference_mask}.items(), strict=True
        ):
            if np.isnan(row).any():
                where = "" if used is None else "'s mask"
                warnings.warn(
                    f"AuraFace finds no face in the {what}{where}; the score is NaN.", stacklevel=2
                )
        return float(cosine(pair[:1], pair[1:])[0, 0])

    def provenance(self) -> dict[str, Any]:
        """The repository or folder, digests of both files, and the threshold."""
        return {
            "metric": self.name,
            "source": source_name(self.source),
            "detection": self.detector.network.digest,
            "recognition": self.network.digest,
            "threshold": self.detector.threshold,
        }


def _holds(inside: np.ndarray, place: tuple[float, float]) -> bool:
    column, row = (math.floor(value) for value in place)
    height, width = inside.shape
    return 0 <= row < height and 0 <= column < width and bool(inside[row, column])
