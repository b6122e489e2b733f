"""The transformers that the cost model knows, by class and by the name of a published model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from recast_probe.cost_model.bria_fibo import BriaFiboConfig
from recast_probe.cost_model.config import Flux2Config, FluxConfig, TransformerConfig
from recast_probe.cost_model.joyimage import JoyImageConfig
from recast_probe.cost_model.longcat import LongCatConfig
from recast_probe.cost_model.qwen import QwenImageConfig
from recast_probe.errors import InputError

CONFIGS = Path(__file__).parent / "configs"
LARGEST_SIZE = 10**7
CONFIG_TYPES: tuple[type[TransformerConfig], ...] = (
    FluxConfig,
    Flux2Config,
    LongCatConfig,
    BriaFiboConfig,
    JoyImageConfig,
    QwenImageConfig,
)


def config_from_dict(config: Mapping[str, Any]) -> TransformerConfig:
    """The sizes of a transformer from its config in the format of diffusers.

    Raises:
        InputError: of a class that is not known, without one of the sizes, or with one that cannot
            be.

    Examples:
        >>> from recast_probe.testing.tiny import build_tiny_pipeline
        >>> transformer = build_tiny_pipeline().transformer
        >>> config_from_dict({**transformer.config, "_class_name": "FluxTransformer2DModel"}).blocks
        5
    """
    name = config.get("_class_name")
    for each in CONFIG_TYPES:
        if name == each.class_name:
            return _checked(each, config)
    known = ", ".join(each.class_name for each in CONFIG_TYPES)
    raise InputError(f"The arithmetic knows {known}, not {name}.")


def _checked(kind: type[TransformerConfig], config: Mapping[str, Any]) -> TransformerConfig:
    try:
        found = kind.from_dict(config)
    except InputError:
        raise
    except Exception as error:  # of int() and float(), of texts, lists and what else JSON holds
        raise InputError(f"The transformer's config has a size that is none ({error}).") from error
    for field in fields(found):
        value = getattr(found, field.name)
        if isinstance(value, int | float) and not 0 <= value <= LARGEST_SIZE:
            raise InputError(f"The transformer's config says {field.name} = {value}.")
    if not found.width or not found.blocks:
        raise InputError("The transformer's config says that it has no blocks, or no width.")
    return found


def config_of(transformer: Any) -> TransformerConfig:
    """The sizes of a transformer that is in memory.

    Raises:
        InputError: of a class that is not known.

    Examples:
        >>> from recast_probe.testing.tiny import build_tiny_pipeline
        >>> config = config_of(build_tiny_pipeline().transformer)
        >>> config.double_blocks, config.single_blocks, config.width
        (2, 3, 32)
    """
    names = [base.__name__ for base in type(transformer).__mro__]
    known = [each.class_name for each in CONFIG_TYPES if each.class_name in names]
    return config_from_dict({**transformer.config, "_class_name": (known or names)[0]})


# pipelines that repaint run the transformer of the pipeline that edits
PUBLISHED = {
    "flux-kontext": "flux_kontext_dev.json",
    "flux-kontext-inpaint": "flux_kontext_dev.json",
    "flux2-dev": "flux2_dev.json",
    "flux2-klein-4b": "flux2_klein_4b.json",
    "flux2-klein-4b-inpaint": "flux2_klein_4b.json",
    "flux2-klein-9b": "flux2_klein_9b.json",
    "flux2-klein-9b-inpaint": "flux2_klein_9b.json",
    "joyimage-edit": "joyimage_edit.json",
    "longcat-image-edit": "longcat_image.json",
    "qwen-image-edit": "qwen_image.json",
    "qwen-image-edit-inpaint": "qwen_image.json",
    "qwen-image-edit-2509": "qwen_image.json",
    "qwen-image-edit-2511": "qwen_image_edit_2511.json",
    "qwen-image-layered": "qwen_image_layered.json",
}
"""Published configs by name."""

SOURCES = {
    "flux_kontext_dev.json": "transformer/config.json of black-forest-labs/FLUX.1-Kontext-dev",
    "flux2_dev.json": "transformer/config.json of black-forest-labs/FLUX.2-dev",
    "flux2_klein_4b.json": "transformer/config.json of black-forest-labs/FLUX.2-klein-4B",
    "flux2_klein_9b.json": "transformer/config.json of black-forest-labs/FLUX.2-klein-9B",
    "joyimage_edit.json": "the transformer/config.json that vLLM-Omni's plugin for MetaX writes "
    "for JoyAI-Image-Edit's weights",
    "longcat_image.json": "transformer/config.json of meituan-longcat/LongCat-Image, whose "
    "sizes LongCat-Image-Edit and -Edit-Turbo share; axes_dims_rope is diffusers' default",
    "qwen_image.json": "transformer/config.json of Qwen/Qwen-Image-Edit, whose sizes "
    "Qwen-Image-Edit-2509 shares",
    "qwen_image_edit_2511.json": "transformer/config.json of Qwen/Qwen-Image-Edit-2511",
    "qwen_image_layered.json": "transformer/config.json of Qwen/Qwen-Image-Layered",
}
"""Where each config is from, by its file."""


def published_config(name: str) -> TransformerConfig:
    """The sizes of one of the models in ``PUBLISHED``.

    Raises:
        KeyError: another name.

    Examples:
        >>> published_config("flux2-klein-9b").heads
        32
    """
    return config_from_dict(json.loads((CONFIGS / PUBLISHED[name]).read_text()))


def flux_kontext_dev() -> FluxConfig:
    """The config of FLUX.1 Kontext dev's transformer.

    Examples:
        >>> flux_kontext_dev().blocks
        57
    """
    found = published_config("flux-kontext")
    assert isinstance(found, FluxConfig)
    return found
