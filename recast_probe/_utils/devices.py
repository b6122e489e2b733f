"""Names of devices, checked against what this machine has."""

from __future__ import annotations

import torch

from recast_probe.errors import InputError


def known_device(device: str | torch.device) -> torch.device:
    """A device that torch can use here.

    Raises:
        InputError: no device of torch, or one that this machine or this build does not have.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"device={device!r} is not a device: {reason}.") from error
    if found.type == "cpu":
        return found
    if found.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            f"device={str(device)!r} was asked for, but torch sees no CUDA device; use 'cpu'."
        )
    try:
        torch.empty(1, device=found).cpu()
    except Exception as error:  # every backend has errors of its own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"device={str(device)!r} cannot be used on this machine ({reason}); use 'cpu'."
        ) from error
    return found
