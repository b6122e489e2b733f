"""Packages outside the bare installation: what each is wanted for, and how to get it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module, util
from typing import Any

from recast_probe.errors import MissingPackageError

PACKAGES = ("torch", "diffusers", "transformers", "nnsight", "numpy")
"""Packages whose versions take part in every result."""


@dataclass(frozen=True)
class Package:
    """A package that only some purposes need.

    Attributes:
        name: what it is called on the package index.
        purpose: what a user wants it for.
        extras: of this package, which bring it; none where it must fit the installed torch.
    """

    name: str
    purpose: str
    extras: tuple[str, ...] = ()

    @property
    def how_to_get(self) -> str:
        """What to do, in words."""
        if self.extras:
            extras = " or ".join(f"'.[{name}]'" for name in self.extras)
            return f"pip install -c constraints.txt -e {extras} in the checkout of recast_probe"
        if self.name == "torchvision":
            return "install the torchvision that fits this torch"
        return f"pip install {self.name}, together with the torchvision that fits this torch"


OPTIONAL = {
    "IPython": Package("ipython", "notebooks", ("notebooks",)),
    "anywidget": Package("anywidget", "the explorer in notebooks", ("notebooks",)),
    "dask": Package("dask", "profiles of a whole benchmark in one store", ("zarr",)),
    "cv2": Package("opencv-python-headless", "automatic masks", ("masks",)),
    "lpips": Package("lpips", "the metric lpips"),
    "onnxruntime": Package("onnxruntime", "face metrics and salient masks", ("masks", "metrics")),
    "ray": Package("ray", "studies on several machines or GPUs", ("ray",)),
    "skimage": Package("scikit-image", "the metric ssim", ("metrics",)),
    "torchao": Package("torchao", "computing in FP8", ("gpu",)),
    "torchmetrics": Package("torchmetrics", "the metrics kid and rfid", ("metrics",)),
    "torchvision": Package("torchvision", "Qwen-Image-Edit, Qwen-Image 2.1 and FLUX.2 dev"),
    "triton": Package("triton", "the Triton readout kernel", ("gpu",)),
    "zarr": Package("zarr", "profiles of a whole benchmark in one store", ("zarr",)),
}
"""By the name of the module that is imported."""


def is_installed(module: str) -> bool:
    """Whether a package could be imported, without doing so."""
    return util.find_spec(module) is not None


def need(module: str, purpose: str) -> Any:
    """The imported module.

    Args:
        module: one of `OPTIONAL`, or a module inside it.
        purpose: what needs it, as the message begins.

    Raises:
        MissingPackageError: it cannot be imported; says why, and how to get it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise missing_package(module.partition(".")[0], purpose, error) from error


def missing_package(module: str, purpose: str, error: Exception) -> MissingPackageError:
    """The error of a purpose whose package cannot be imported."""
    package = OPTIONAL[module]
    both = package.name if package.name == module else f"{module} ({package.name})"
    return MissingPackageError(
        f"{purpose} needs the package {both}, which cannot be imported ({error}). To get it: "
        f"{package.how_to_get}."
    )
