"""Statistics outside ``torch.autocast``, on the numbers that attention sees inside it.

Under autocast PyTorch's attention casts query, key and value to one half-precision type, whatever
they come as, and every other matrix product runs in it too. Probabilities must be made of the cast
numbers, but in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")
OfTensors = Callable[Concatenate[Tensor, Tensor, Tensor, P], R]


def outside_autocast(function: OfTensors[P, R]) -> OfTensors[P, R]:
    """Have a function of (query, key, value, ...) run with autocast off, on these three as they are
    cast for attention under the autocast that it was called in."""

    @functools.wraps(function)
    def outside(
        query: Tensor, key: Tensor, value: Tensor, *arguments: P.args, **named: P.kwargs
    ) -> R:
        device = query.device.type
        if not active(device):
            return function(query, key, value, *arguments, **named)
        query, key, value = (as_cast(each) for each in (query, key, value))
        with torch.autocast(device, enabled=False):
            return function(query, key, value, *arguments, **named)

    return outside


def active(device: str) -> bool:
    """Whether autocast is on for a type of device."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def as_cast(tensor: Tensor) -> Tensor:
    """A query, key or value as attention sees it in here: under autocast all are cast but float64
    and whole numbers."""
    device = tensor.device.type
    if not active(device) or not tensor.is_floating_point() or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))
