"""What makes one process compute other bits than another: taken over, or found to differ."""

from __future__ import annotations

import os
from typing import Any

import torch

from recast_probe._utils.provenance import versions

THREADS = "OMP_NUM_THREADS"


def numeric_settings() -> dict[str, Any]:
    """Settings of this process that decide the last bits of results, for `use_settings`."""
    return {
        # read by onnxruntime's sessions of ours, too
        "environment": os.environ.get(THREADS),
        "threads": torch.get_num_threads(),
        "matmul": torch.get_float32_matmul_precision(),
        "cudnn": {
            name: getattr(torch.backends.cudnn, name)
            for name in ("allow_tf32", "benchmark", "deterministic")
        },
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "only warn": torch.is_deterministic_algorithms_warn_only_enabled(),
        "dtype": torch.get_default_dtype(),
    }


def use_settings(settings: dict[str, Any]) -> None:
    """Make this process compute as the one that `settings` are of."""
    if settings["environment"] is None:
        os.environ.pop(THREADS, None)
    else:
        os.environ[THREADS] = settings["environment"]
    torch.set_num_threads(settings["threads"])
    torch.set_float32_matmul_precision(settings["matmul"])
    for name, value in settings["cudnn"].items():
        setattr(torch.backends.cudnn, name, value)
    torch.use_deterministic_algorithms(settings["deterministic"], warn_only=settings["only warn"])
    torch.set_default_dtype(settings["dtype"])


def numeric_facts(cuda: bool) -> dict[str, Any]:
    """What cannot be set: versions, and the kind of processor.

    Args:
        cuda: whether models run on a GPU.
    """
    kind = torch.cuda.get_device_name() if cuda and torch.cuda.is_available() else None
    return {
        "versions": versions(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": kind,
    }
