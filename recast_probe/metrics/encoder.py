"""Image features of a subject from the MobileNetV2 that ships with the package."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from recast_probe.errors import InputError
from recast_probe.metrics.masking import IMAGENET_DEVIATION, IMAGENET_MEAN, Mask, isolate
from recast_probe.metrics.mobilenet import FEATURES, MobileNetV2

WEIGHTS = Path(__file__).parent / "weights" / "mobilenet_v2_imagenet.safetensors"
SIZE = 128
PADDING = 0.15


@lru_cache(maxsize=2)
def load_encoder(path: Path = WEIGHTS) -> tuple[MobileNetV2, np.ndarray]:
    """The network in float32, evaluation mode, and the centre (1280,) of its unit features.

    Raises InputError when the file is missing, damaged or of another network.
    """
    try:
        tensors = load_file(path)
        centre = tensors.pop("centre").numpy()
        network = MobileNetV2()
        network.load_state_dict({name: value.float() for name, value in tensors.items()})
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise InputError(
            f"The encoder file {path} cannot be used ({error}). "
            "Install the package again, or make the file with recast_probe.metrics.convert."
        ) from error
    return network.eval().requires_grad_(False), centre


@torch.inference_mode()
def unit_features(network: MobileNetV2, subjects: Sequence[np.ndarray], batch: int) -> np.ndarray:
    """Uncentred features (n, 1280) of length one, for what `isolate` returns."""
    rows = []
    for start in range(0, len(subjects), batch):
        stack = np.stack(subjects[start : start + batch])
        normalised = (stack - IMAGENET_MEAN) / IMAGENET_DEVIATION
        rows.append(network(torch.from_numpy(normalised).permute(0, 3, 1, 2).contiguous()))
    values: Tensor = torch.nn.functional.normalize(torch.cat(rows), dim=1)
    return values.numpy()


def unit_rows(values: np.ndarray) -> np.ndarray:
    """Rows (n, d) divided by their length."""
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def features(
    images: Sequence[Image.Image], masks: Sequence[Mask | None] | None = None, batch: int = 16
) -> np.ndarray:
    """Identity features (n, 1280), float32, mean-centred and of length one.

    `masks` are arrays (height, width) of their images; None, for one image or for all, takes the
    whole image, which then measures the background as much as the subject. The centre is the mean
    feature of 300 unrelated objects, so that unrelated subjects have a cosine near 0.
    Raises InputError when counts or shapes disagree.

    Examples:
        >>> features([Image.new("RGB", (32, 32), "red")]).shape
        (1, 1280)
    """
    if isinstance(images, Image.Image):
        raise InputError("features takes a list of images; put the one image into a list.")
    chosen = [None] * len(images) if masks is None else list(masks)
    if len(chosen) != len(images):
        raise InputError(f"{len(images)} images but {len(chosen)} masks: give one mask an image.")
    if not images:
        return np.zeros((0, FEATURES), dtype=np.float32)
    network, centre = load_encoder()
    subjects = [
        isolate(image, mask, SIZE, PADDING) for image, mask in zip(images, chosen, strict=True)
    ]
    return unit_rows(unit_features(network, subjects, batch) - centre)


def cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of every row of `first` (n, d) with every row of `second` (m, d): (n, m), in [-1, 1].

    Raises InputError unless both are two-dimensional with the same d.

    Examples:
        >>> cosine(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0], [0.0, 3.0]]))
        array([[1., 0.]])
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise InputError(
            f"Features have shapes {first.shape} and {second.shape}; expected (n, d) and (m, d)."
        )
    return np.clip(unit_rows(first) @ unit_rows(second).T, -1.0, 1.0)
