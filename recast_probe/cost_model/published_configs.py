"""The transformers that the cost model knows, by class and by the name of a published model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from recast_probe.cost_model.config import Flux2Config, FluxConfig, TransformerConfig
from recast_probe.cost_model.qwen import QwenImageConfig
from recast_probe.errors import InputError

CONFIGS = Path(__file__).parent / "configs"
LARGEST_SIZE = 10**7
CONFIG_TYPES: tuple[type[TransformerConfig], ...] = (FluxConfig, Flux2Config, QwenImageConfig)


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


PUBLISHED = {
    "flux-kontext": "flux_kontext_dev.json",
    "flux2-dev": "flux2_dev.json",
    "flux2-klein-4b": "flux2_klein_4b.json",
    "flux2-klein-9b": "flux2_klein_9b.json",
    "qwen-image-edit": "qwen_image.json",
}
"""Published configs by name."""


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
