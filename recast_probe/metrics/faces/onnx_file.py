"""An ONNX network with one input, run by onnxruntime."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from recast_probe._utils.optional import need
from recast_probe.errors import InputError


class OnnxFile:
    """A network from a file.

    Args:
        path: the ONNX file.
        device: "cpu" or "cuda"; the latter needs onnxruntime-gpu.
        digest: SHA-256 (hexadecimal) that the file must have; None for any.

    Attributes:
        digest: SHA-256 (hexadecimal) of the file that was loaded.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        InputError: the file is damaged, of another digest, has more than one input, or the device
            is not there.
    """

    def __init__(self, path: Path, device: str = "cpu", digest: str | None = None) -> None:
        runtime = need("onnxruntime", "auraface")
        self.path, self.device = path, device
        provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(
            torch.device(device).type
        )
        if provider not in runtime.get_available_providers():
            raise InputError(
                f"onnxruntime cannot run on {device!r} here; use 'cpu', or install "
                "onnxruntime-gpu for CUDA."
            )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            with path.open("rb") as file:
                self.digest = hashlib.file_digest(file, "sha256").hexdigest()
            self._session = runtime.InferenceSession(str(path), options, providers=[provider])
        except Exception as error:  # the runtime raises a different class for every cause
            raise InputError(f"{path.name} cannot be used as an ONNX network: {error}") from error
        if digest not in (None, self.digest):
            raise InputError(f"{path} was replaced by another file since it was loaded.")
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise InputError(f"{path.name} does not take one batch of images.")
        self._input = inputs[0].name
        height, width = (
            each if isinstance(each, int) and each > 0 else None for each in inputs[0].shape[2:]
        )
        self.input_size: tuple[int | None, int | None] = (height, width)
        self.outputs = len(self._session.get_outputs())

    def __reduce__(self) -> tuple[type[OnnxFile], tuple[Path, str, str]]:
        """Opened again in another process: a session cannot be sent there."""
        return OnnxFile, (self.path, self.device, self.digest)

    def __call__(self, values: np.ndarray) -> list[np.ndarray]:
        """All outputs for a batch (n, 3, height, width), float32, in the order of the file."""
        found = self._session.run(None, {self._input: values})
        return [np.asarray(each) for each in found]
