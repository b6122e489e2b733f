"""Pocket Kontext: a small in-context diffusion transformer that ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recast_probe._utils.quiet_loading import without_loading_bars
from recast_probe.errors import InputError
from recast_probe.files.envelope import check_folder

from .shipped import Sample, samples

if TYPE_CHECKING:
    from diffusers import FluxKontextPipeline

__all__ = ["Sample", "folder", "load", "samples"]


def folder() -> Path:
    """Where the shipped pipeline lies, in diffusers layout.

    Raises:
        InputError: this installation has no weights.

    Examples:
        >>> folder().name
        'model'
    """
    path = Path(__file__).parent / "model"
    if not (path / "model_index.json").is_file():
        raise InputError(
            f"Pocket Kontext's weights are not in {path}. Install recast_probe from a full "
            "checkout or wheel, or train them with `recast-probe pocket train`."
        )
    return path


def load() -> FluxKontextPipeline:
    """The shipped model as an unmodified `diffusers.FluxKontextPipeline`, float32 on the CPU.

    Raises:
        InputError: this installation has no weights.
        DamagedFileError: a file of the model is not as it was shipped.

    Examples:
        >>> type(load()).__name__
        'FluxKontextPipeline'
    """
    from diffusers import FluxKontextPipeline

    check_folder(folder())
    with without_loading_bars():
        pipeline = FluxKontextPipeline.from_pretrained(folder(), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
