"""An examination of the installation."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

from recast_probe._utils.optional import OPTIONAL, PACKAGES, is_installed
from recast_probe.commands.inputs import SAMPLE, sample_names

# what results are stored and drawn with
FOR_RESULTS = ("xarray", "h5netcdf", "matplotlib")


def examine() -> dict[str, Any]:
    """Versions, device, attention backend, what is bundled, and what is missing for what."""
    import torch

    import recast_probe
    from recast_probe import pocket
    from recast_probe.errors import InputError
    from recast_probe.metrics.registry import ENTRIES
    from recast_probe.metrics.registry import missing as lacking

    problems = []
    try:
        model: str | None = str(pocket.folder())
    except InputError as error:
        model = None
        problems.append(str(error))
    broken = _broken_torchvision()
    if broken:
        problems.append(broken)
    missing = {
        package.purpose: package.how_to_get
        for module, package in OPTIONAL.items()
        if not is_installed(module)
    }
    return {
        "recast_probe": recast_probe.__version__,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in (*PACKAGES, *FOR_RESULTS)},
        "device": _device(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(_memory() / 2**30, 1),
        "attention_backend": _backend(),
        "bundled_model": model,
        "samples": [f"{SAMPLE}{name}" for name in sample_names()],
        "tiny_models": _tiny_models() if broken is None else [],
        "missing": missing,
        "metrics": {name: _readiness(lacking(name)) for name in ENTRIES},
        "problems": problems,
        "healthy": not problems,
    }


def _tiny_models() -> list[str]:
    """What ``--model`` takes besides, without a download; building one needs all of diffusers."""
    from recast_probe.probe import TINY_PREFIX
    from recast_probe.testing.tiny_pipelines import TINY

    return [f"{TINY_PREFIX}{name}" for name in TINY]


def _readiness(lack: str | None) -> str:
    return "ready" if lack is None else f"needs {lack}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    if torch.backends.mps.is_available():
        return "mps"
    return f"cpu: {platform.processor() or platform.machine()}"


def _backend() -> str:
    """The kernel that the exact readout really uses here, found by calling it."""
    import torch

    from recast_probe.attention import attention_with_log_sum_exp

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tensor = torch.randn(1, 16, 2, 64, device=device)
    return attention_with_log_sum_exp(tensor, tensor, tensor).backend


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def _broken_torchvision() -> str | None:
    """A torchvision that cannot be imported breaks diffusers; none at all does not."""
    if not is_installed("torchvision"):
        return None
    try:
        import torchvision  # noqa: F401
    except Exception as error:
        return (
            f"torchvision is installed but cannot be imported ({error}); diffusers fails with it. "
            "Uninstall it, or install the build that fits this torch."
        )
    return None
