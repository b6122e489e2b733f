"""The transformers that the arithmetic knows, by class and by the name of a published model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recast_probe.arithmetic.config import Flux2Config, FluxConfig, TransformerConfig
from recast_probe.arithmetic.qwen import QwenImageConfig
from recast_probe.errors import InputError

CONFIGS = Path(__file__).parent / "configs"
CONFIG_TYPES: tuple[type[TransformerConfig], ...] = (FluxConfig, Flux2Config, QwenImageConfig)


def config_from_dict(config: Mapping[str, Any]) -> TransformerConfig:
    """The sizes of a transformer from its config in the format of diffusers.

    Raises:
        InputError: of a class that is not known, or without one of the sizes.
    """
    name = config.get("_class_name")
    for each in CONFIG_TYPES:
        if name == each.class_name:
            return each.from_dict(config)
    known = ", ".join(each.class_name for each in CONFIG_TYPES)
    raise InputError(f"The arithmetic knows {known}, not {name}.")


def config_of(transformer: Any) -> TransformerConfig:
    """The sizes of a transformer that is in memory.

    Raises:
        InputError: of a class that is not known.
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
    """The sizes of one of the models in ``PUBLISHED``."""
    return config_from_dict(json.loads((CONFIGS / PUBLISHED[name]).read_text()))


def flux_kontext_dev() -> FluxConfig:
    """The config of FLUX.1 Kontext dev's transformer."""
    found = published_config("flux-kontext")
    assert isinstance(found, FluxConfig)
    return found
