"""U2-Netp, a small network for salient objects (Qin et al., Pattern Recognition 2020)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recast_probe._utils.optional import need
from recast_probe.errors import InputError

WEIGHTS = Path(__file__).parent / "weights" / "u2netp.onnx"
SHA256 = "309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8"
SIDE = 320  # the size that it was trained at
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)


@dataclass(frozen=True)
class U2NetP:
    """The salient object of an image, by the network that ships with the package.

    Args:
        certain: the network's strongest answer must reach this probability; below it nothing is
            salient, and the mask is empty.

    Raises:
        InputError: onnxruntime is missing, or the weights are missing or damaged.

    Examples:
        >>> U2NetP.name, U2NetP.certain
        ('u2netp', 0.5)
    """

    certain: float = 0.5
    name = "u2netp"

    def __post_init__(self) -> None:
        _session()

    def probabilities(self, image: Image.Image) -> np.ndarray:
        """How salient each pixel is, float32 (height, width) in 0..1, as the network says it."""
        small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        pixels = np.asarray(small, dtype=np.float32)
        # as in its training: the brightest value counts as white
        pixels = (pixels / max(float(pixels.max()), 1.0) - MEAN) / DEVIATION
        session = _session()
        (name,) = (each.name for each in session.get_inputs())
        outputs = [session.get_outputs()[0].name]
        (answer,) = session.run(outputs, {name: pixels.transpose(2, 0, 1)[None]})
        found = Image.fromarray(answer[0, 0].astype(np.float32))
        values = np.asarray(found.resize(image.size, Image.Resampling.BILINEAR))
        return values.clip(0, 1)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """The mask, float32 (height, width) in 0..1, stretched to the full range; 0 for none."""
        values = self.probabilities(image)
        low, high = float(values.min()), float(values.max())
        if high < self.certain or high == low:
            return np.zeros_like(values)
        return (values - low) / (high - low)


@lru_cache(maxsize=1)
def _session() -> Any:
    """The network, loaded once; the file is checked before it is read."""
    runtime = need("onnxruntime", "Finding masks where none are given")
    try:
        weights = WEIGHTS.read_bytes()
    except OSError as error:
        raise InputError(
            f"The weights of U2-Netp, {WEIGHTS}, cannot be read ({error.strerror}); install "
            "recast_probe again."
        ) from error
    if hashlib.sha256(weights).hexdigest() != SHA256:
        raise InputError(
            f"{WEIGHTS} is not the file that was shipped (its SHA-256 differs); install "
            "recast_probe again."
        )
    options = runtime.SessionOptions()
    # as many threads as torch is allowed, not one a core of a shared machine
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
    options.log_severity_level = 3
    return runtime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
