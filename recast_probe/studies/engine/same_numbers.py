"""What makes one process compute other bits than another: taken over, or found to differ."""

from __future__ import annotations

import os
from typing import Any

import torch

from recast_probe._utils.provenance import versions

THREADS = "OMP_NUM_THREADS"
CUDNN = ("enabled", "allow_tf32", "benchmark", "deterministic")
MKLDNN = ("enabled", "deterministic")
# which kernels of scaled dot product attention may be taken
KERNELS = ("flash", "mem_efficient", "math", "cudnn")
# how cuBLAS may sum in half precision; newer versions of torch have a second part of some
SUMS = (
    "allow_fp16_reduced_precision_reduction",
    "allow_bf16_reduced_precision_reduction",
    "allow_fp16_accumulation",
)


def numeric_settings() -> dict[str, Any]:
    """Settings of this process that decide the last bits of results, for `use_settings`."""
    cuda = torch.backends.cuda
    return {
        # read by onnxruntime's sessions of ours, too
        "environment": os.environ.get(THREADS),
        "threads": torch.get_num_threads(),
        "matmul": torch.get_float32_matmul_precision(),
        "cudnn": {name: getattr(torch.backends.cudnn, name) for name in CUDNN},
        "mkldnn": {name: getattr(torch.backends.mkldnn, name) for name in MKLDNN},
        "attention": {name: getattr(cuda, f"{name}_sdp_enabled")() for name in KERNELS},
        "attention sums": cuda.fp16_bf16_reduction_math_sdp_allowed(),
        "sums": _sums(),
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
    for name, value in settings["mkldnn"].items():
        setattr(torch.backends.mkldnn, name, value)
    cuda = torch.backends.cuda
    for name, value in settings["attention"].items():
        getattr(cuda, f"enable_{name}_sdp")(value)
    cuda.allow_fp16_bf16_reduction_math_sdp(settings["attention sums"])
    for name, value in settings["sums"].items():
        setattr(cuda.matmul, name, value)
    torch.use_deterministic_algorithms(settings["deterministic"], warn_only=settings["only warn"])
    torch.set_default_dtype(settings["dtype"])


def _sums() -> dict[str, Any]:
    """How cuBLAS may sum, each as it is set."""
    matmul, found = torch.backends.cuda.matmul, {}
    for name in SUMS:
        value, second = getattr(matmul, name), getattr(matmul, f"{name}_split_k", None)
        found[name] = value if second is None else (value, second)
    return found


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
