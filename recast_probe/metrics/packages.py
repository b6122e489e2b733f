"""Packages that some metrics need and others do not."""

from __future__ import annotations

from importlib import import_module, util
from typing import Any

from recast_probe.errors import MissingPackageError

HOW_TO_GET = {
    "onnxruntime": "pip install 'recast_probe[metrics]'",
    "skimage": "pip install 'recast_probe[metrics]'",
    "torchmetrics": "pip install 'recast_probe[metrics]'",
    "lpips": "pip install lpips, together with the torchvision build that fits your torch",
}


def is_installed(package: str) -> bool:
    """Whether a package could be imported, without doing so."""
    return util.find_spec(package) is not None


def need(package: str, metric: str) -> Any:
    """The imported package. Raises MissingPackageError, which says how to get it."""
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"{metric} needs the package {package}, which cannot be imported ({error}). To get "
            f"it: {HOW_TO_GET[package]}."
        ) from error
