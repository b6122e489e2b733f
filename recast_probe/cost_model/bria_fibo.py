"""The numbers of a FIBO transformer: FLUX.1's blocks, each with a text layer of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from recast_probe.cost_model.config import FluxConfig
from recast_probe.cost_model.longcat import refuse_patches


@dataclass(frozen=True)
class BriaFiboConfig(FluxConfig):
    """Sizes of a `BriaFiboTransformer2DModel`. Before every block, half of the text's channels are
    replaced by a projection of another layer of the text encoder. There is no pooled text, and its
    width is 0.

    Attributes:
        caption_width: of the layers of the text encoder.

    Examples:
        >>> BriaFiboConfig(8, 38, 24, 128, 48, 4096, 0, False, 2048).text_linear
        157286400
    """

    class_name: ClassVar[str] = "BriaFiboTransformer2DModel"

    caption_width: int

    @classmethod
    def _own(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        refuse_patches(cls.class_name, config)
        return {
            "pooled_width": 0,
            "guidance": bool(config["guidance_embeds"]),
            "caption_width": int(config["text_encoder_dim"]),
        }

    @property
    def _captions(self) -> int:
        return self.blocks * self.caption_width * (self.width // 2)

    @property
    def text_linear(self) -> int:
        return super().text_linear + self._captions

    @property
    def parameters(self) -> int:
        return super().parameters + self._captions
