"""Pocket's IP-Adapter: a picture told to Pocket's text-to-image pipeline through 128 tokens.

Made by ``recast-probe pocket train-adapter``. diffusers loads it unmodified::

    pipe = FluxPipeline(**pocket.load().components | {"feature_extractor": Views()})
    pipe.load_ip_adapter(
        str(folder()),
        weight_name="ip_adapter.safetensors",
        image_encoder_pretrained_model_name_or_path=str(folder() / "image_encoder"),
    )

Its loader gives every image of this adapter 4 tokens. `Views` makes 32 images of one; where a
pipeline has CLIP's own preprocessing, `windows` of a picture are given as its images.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from recast_probe.errors import InputError
from recast_probe.files.envelope import check_folder

from .views import Views, windows

if TYPE_CHECKING:
    from diffusers import FluxKontextPipeline, FluxPipeline

__all__ = ["Views", "folder", "load", "load_into", "windows"]


def folder() -> Path:
    """Where the shipped adapter and its image encoder lie.

    Raises:
        InputError: this installation has no weights.

    Examples:
        >>> sorted(path.name for path in folder().glob("i*"))
        ['image_encoder', 'ip_adapter.safetensors']
    """
    path = Path(__file__).parent / "weights"
    if not (path / "ip_adapter.safetensors").is_file():
        raise InputError(
            f"The IP-Adapter's weights are not in {path}. Install recast_probe from a full "
            "checkout or wheel, or train them with `recast-probe pocket train-adapter`."
        )
    return path


def load() -> FluxPipeline:
    """An unmodified `diffusers.FluxPipeline` of the shipped model's parts with its IP-Adapter.

    Raises:
        InputError: this installation has no weights.
        DamagedFileError: a file is not as it was shipped.

    Examples:
        >>> type(load()).__name__
        'FluxPipeline'
    """
    from recast_probe.pocket import load as load_base

    return load_into(load_base(), folder())


def load_into(base: FluxKontextPipeline, adapter: Path) -> FluxPipeline:
    """The text-to-image pipeline of a base's parts with an adapter; the parts are the base's own.

    Args:
        adapter: a folder that ``recast-probe pocket train-adapter`` wrote for this base.

    Raises:
        InputError: no adapter of this base.
        DamagedFileError: a file is not as it was written.

    Examples:
        >>> from recast_probe import pocket
        >>> load_into(pocket.load(), folder()).feature_extractor.views
        32
    """
    from diffusers import FluxPipeline

    from recast_probe.pipelines.ip_adapter.loading import IPAdapter

    check_folder(adapter)
    pipeline = FluxPipeline(**base.components | {"feature_extractor": Views()})
    IPAdapter(adapter, adapter / "image_encoder").load_into(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
