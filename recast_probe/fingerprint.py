"""A cheap fingerprint of a pipeline's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch

SAMPLES = 4096


def _tensors(pipeline: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for component, module in sorted(pipeline.components.items()):
        if isinstance(module, torch.nn.Module):
            for name, tensor in sorted(module.state_dict().items()):
                if isinstance(tensor, torch.Tensor):
                    yield f"{component}.{name}", tensor


def _sample(tensor: torch.Tensor) -> bytes:
    """The tensor itself up to SAMPLES elements, else as many evenly spaced ones."""
    if tensor.is_meta:
        return b"meta"
    try:
        flat = tensor.detach().reshape(-1)
        if flat.numel() > SAMPLES:
            places = torch.linspace(0, flat.numel() - 1, SAMPLES, dtype=torch.float64).long()
            flat = flat[places.to(flat.device)]
        return flat.cpu().contiguous().view(torch.uint8).numpy().tobytes()
    except (RuntimeError, NotImplementedError):  # tensor subclasses that cannot be viewed as bytes
        return type(tensor).__name__.encode()


def model_fingerprint(pipeline: Any) -> str:
    """SHA-256 over the names, shapes, dtypes and sampled values of all weights (hexadecimal).

    A tensor of up to 4,096 elements enters whole, a larger one with 4,096 evenly spaced elements,
    so that a 12-billion-parameter model takes about a second. A change of all weights of a layer
    (training, LoRA fusion, quantisation, another dtype) changes the fingerprint; the change of a
    single element of a large tensor may go unseen. Weights that are offloaded to disk, or
    held in a tensor subclass without plain bytes, enter by name, shape and dtype only.
    """
    digest = hashlib.sha256()
    for name, tensor in _tensors(pipeline):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(_sample(tensor))
    return digest.hexdigest()


def weights_state(pipeline: Any) -> int:
    """Changes when a weight is replaced or changed in place; for caching the fingerprint."""
    return hash(
        tuple(
            (name, tensor.data_ptr(), tensor._version, tensor.dtype, tuple(tensor.shape))
            for name, tensor in _tensors(pipeline)
            if not tensor.is_meta
        )
    )
