"""The numbers of a LongCat-Image transformer: FLUX.1's blocks, and no pooled text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from recast_probe.cost_model.config import FluxConfig
from recast_probe.errors import InputError


@dataclass(frozen=True)
class LongCatConfig(FluxConfig):
    """Sizes of a `LongCatImageTransformer2DModel`. It embeds no guidance scale, and what its config
    says of pooled text it does not use: that width is 0.

    Examples:
        >>> config = rp.cost_model.published_config("longcat-image-edit")
        >>> config.double_blocks, config.single_blocks, round(config.parameters / 1e9, 2)
        (10, 20, 6.27)
    """

    class_name: ClassVar[str] = "LongCatImageTransformer2DModel"

    @classmethod
    def _own(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        refuse_patches(cls.class_name, config)
        return {"pooled_width": 0, "guidance": False}


def refuse_patches(name: str, config: Mapping[str, Any]) -> None:
    """Raise InputError where tokens are cut into patches, so that more values a token are written
    than read."""
    patch = int(config.get("patch_size", 1))
    if patch != 1:
        raise InputError(f"The arithmetic knows {name} with patch_size=1, not {patch}.")
