"""The numbers of a Qwen-Image transformer: FLUX.1's double-stream blocks, and no others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recast_probe.arithmetic.config import CONFIGS, TIME_CHANNELS, FluxConfig, linear
from recast_probe.errors import InputError


@dataclass(frozen=True)
class QwenImageConfig(FluxConfig):
    """Sizes of a `QwenImageTransformer2DModel`; a block has the layers of FLUX.1's double-stream
    one. There is no pooled text, and its width is 0.

    Attributes:
        zero_cond_t: image tokens are modulated for two timesteps, the second of which is 0.
    """

    zero_cond_t: bool = False

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> QwenImageConfig:
        """From a config in the format of diffusers.

        Raises:
            InputError: of another class, without one of the sizes, or with one that is not known.
        """
        name = config.get("_class_name")
        if name != "QwenImageTransformer2DModel":
            raise InputError(f"This is the config of a {name}, not of Qwen-Image's transformer.")
        try:
            channels = int(config["in_channels"])
            written = int(config["patch_size"]) ** 2 * int(config["out_channels"] or channels)
            found = cls(
                double_blocks=int(config["num_layers"]),
                single_blocks=0,
                heads=int(config["num_attention_heads"]),
                head_dim=int(config["attention_head_dim"]),
                channels=channels,
                text_width=int(config["joint_attention_dim"]),
                pooled_width=0,
                guidance=bool(config.get("guidance_embeds", False)),
                zero_cond_t=bool(config.get("zero_cond_t", False)),
            )
        except KeyError as error:
            raise InputError(f"The transformer's config has no {error}.") from error
        if written != channels or found.guidance:
            raise InputError(
                f"The arithmetic knows Qwen-Image transformers that read and write as many values "
                f"a token and embed no guidance scale, not {channels} and {written} values with "
                f"guidance_embeds={found.guidance}."
            )
        return found

    @property
    def parameters(self) -> int:
        """All parameters of the transformer."""
        width, square = self.width, linear(self.width, self.width)
        mlp = linear(width, 4 * width) + linear(4 * width, width)
        embedders = (
            linear(self.channels, width)
            + self.text_width
            + linear(self.text_width, width)
            + linear(TIME_CHANNELS, width)
            + square
        )
        blocks = self.double_blocks * (8 * square + 2 * mlp + 4 * self.head_dim)
        return blocks + self.modulation_parameters + embedders + linear(width, self.channels)

    @property
    def vector_flop(self) -> int:
        """FLOP a call of the layers that act on one vector, or on two with ``zero_cond_t``."""
        width = self.width
        times = 2 if self.zero_cond_t else 1
        clock = TIME_CHANNELS * width + width**2
        return 2 * (times * clock + (self.double_blocks * 6 * (times + 1) + 2) * width**2)


def qwen_image() -> QwenImageConfig:
    """The config of Qwen-Image's transformer, which is Qwen-Image-Edit's as well."""
    return QwenImageConfig.from_dict(json.loads((CONFIGS / "qwen_image.json").read_text()))
