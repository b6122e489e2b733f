"""SCRFD: where faces are, and five points of each (Guo et al., 2021), from its ONNX file.

The file has nine outputs: for the strides 8, 16 and 32 first the scores, then the distances from
the anchor to left, top, right and bottom, then the shifts of five points, in units of the stride.
Two anchors stand on every place of a stride's grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.metrics.faces.onnx_file import OnnxFile
from recast_probe.metrics.masking import pixels

STRIDES = (8, 16, 32)
ANCHORS = 2
SIZE = 640
MEAN, DEVIATION = 127.5, 128.0


@dataclass(frozen=True, eq=False)
class Face:
    """A face in the coordinates of its image, x to the right and y down, in pixels.

    Attributes:
        box: left, top, right, bottom.
        points: (5, 2), eyes, nose and corners of the mouth.
        score: the detector's, in [0, 1].

    Examples:
        >>> face = Face(box=np.array([10, 20, 30, 60]), points=np.zeros((5, 2)), score=0.9)
        >>> face.area, face.centre
        (800.0, (20.0, 40.0))
    """

    box: np.ndarray
    points: np.ndarray
    score: float

    @property
    def area(self) -> float:
        """Of the box, in pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))

    @property
    def centre(self) -> tuple[float, float]:
        """x and y of the middle of the box."""
        return float(self.box[[0, 2]].mean()), float(self.box[[1, 3]].mean())


class FaceDetector:
    """Finds faces with an SCRFD network.

    Args:
        path: its ONNX file.
        device: "cpu" or "cuda".
        threshold: the least score of a face.
        overlap: of two boxes that share more than this (intersection over union), the better stays.

    Raises:
        InputError: not an ONNX file of this layout.
        MissingPackageError: onnxruntime is not installed.

    Examples:
        >>> try:
        ...     FaceDetector(Path("no.onnx"))
        ... except rp.RecastProbeError:
        ...     print("no detector")
        no detector
    """

    def __init__(
        self, path: Path, device: str = "cpu", threshold: float = 0.5, overlap: float = 0.4
    ) -> None:
        self.network = OnnxFile(path, device)
        self.threshold, self.overlap = threshold, overlap
        if self.network.outputs != 3 * len(STRIDES):
            raise InputError(
                f"{path.name} has {self.network.outputs} outputs; a face detector with points "
                f"(SCRFD, bnkps) has {3 * len(STRIDES)}."
            )
        height, width = self.network.input_size
        self.size = (height or SIZE, width or SIZE)

    def detect(self, image: Image.Image) -> list[Face]:
        """All faces, the best score first."""
        canvas, scale = letterbox(pixels(image), self.size)
        values = (canvas - MEAN) / DEVIATION
        outputs = self.network(np.moveaxis(values, -1, 0)[None].astype(np.float32))
        scores, boxes, points = decode(outputs, self.size)
        sure = scores >= self.threshold
        scores, boxes, points = scores[sure], boxes[sure] / scale, points[sure] / scale
        return [
            Face(boxes[index], points[index], float(scores[index]))
            for index in suppress(boxes, scores, self.overlap)
        ]


def letterbox(colours: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """An image (height, width, 3) in 0..1, as large as fits into size, at the top left on black.

    Returns:
        The canvas (*size, 3) in whole numbers 0..255, and the factor by which lengths grew.
    """
    height, width = colours.shape[:2]
    rows, columns = size
    if height / width > rows / columns:
        new_height, new_width = rows, max(1, int(rows * width / height))
    else:
        new_height, new_width = max(1, int(columns * height / width)), columns
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(colours * 255).permute(2, 0, 1)[None],
        size=(new_height, new_width),
        mode="bilinear",
        align_corners=False,
    )
    canvas = np.zeros((rows, columns, 3), np.float32)
    canvas[:new_height, :new_width] = resized[0].permute(1, 2, 0).round().numpy()
    return canvas, new_height / height


def decode(
    outputs: list[np.ndarray], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (n,), boxes (n, 4) and points (n, 5, 2) of all anchors, in pixels of the canvas.

    Raises InputError when an output does not have a row for each of the anchors.
    """
    scores, boxes, points = [], [], []
    for level, stride in enumerate(STRIDES):
        rows, columns = size[0] // stride, size[1] // stride
        y, x = np.mgrid[:rows, :columns] * stride
        anchors = np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), ANCHORS, axis=0)
        parts = [
            _rows(outputs[level + kind * len(STRIDES)], len(anchors), width, stride)
            for kind, width in enumerate((1, 4, 10))
        ]
        scores.append(parts[0][:, 0])
        distances = parts[1] * stride
        boxes.append(np.hstack([anchors - distances[:, :2], anchors + distances[:, 2:]]))
        points.append(anchors[:, None] + parts[2].reshape(-1, 5, 2) * stride)
    return np.concatenate(scores), np.concatenate(boxes), np.concatenate(points)


def _rows(values: np.ndarray, anchors: int, width: int, stride: int) -> np.ndarray:
    if values.size != anchors * width or values.shape[-1] != width:
        raise InputError(
            f"The face detector's output for stride {stride} has shape {values.shape}; expected "
            f"({anchors}, {width})."
        )
    return values.reshape(anchors, width).astype(np.float64)


def suppress(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> list[int]:
    """Indices of the boxes that stay, the best score first: greedy non-maximum suppression.

    Lengths count pixels from edge to edge inclusively, as the detector's authors do.
    """
    left, top, right, bottom = boxes.T
    areas = (right - left + 1) * (bottom - top + 1)
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        width = np.minimum(right[best], right[order]) - np.maximum(left[best], left[order]) + 1
        height = np.minimum(bottom[best], bottom[order]) - np.maximum(top[best], top[order]) + 1
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        order = order[shared / (areas[best] + areas[order] - shared) <= overlap]
    return kept
