"""The numbers of a FLUX.1 transformer that decide its parameters and its work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recast_probe.errors import InputError

TIME_CHANNELS = 256  # sinusoidal channels of a timestep, fixed in diffusers
CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class FluxConfig:
    """Sizes of a `FluxTransformer2DModel`.

    Attributes:
        double_blocks, single_blocks: numbers of blocks.
        heads, head_dim: attention heads of a block, and channels of a head.
        channels: values of a packed latent token.
        text_width, pooled_width: of the T5 states and of the pooled CLIP state.
        guidance: whether the guidance scale is embedded.
    """

    double_blocks: int
    single_blocks: int
    heads: int
    head_dim: int
    channels: int
    text_width: int
    pooled_width: int
    guidance: bool

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> FluxConfig:
        """From a config in the format of diffusers.

        Raises:
            InputError: of another class, or without one of the sizes.
        """
        name = config.get("_class_name", "FluxTransformer2DModel")
        if name != "FluxTransformer2DModel":
            raise InputError(f"The arithmetic knows FluxTransformer2DModel, not {name}.")
        try:
            return cls(
                double_blocks=int(config["num_layers"]),
                single_blocks=int(config["num_single_layers"]),
                heads=int(config["num_attention_heads"]),
                head_dim=int(config["attention_head_dim"]),
                channels=int(config["in_channels"]),
                text_width=int(config["joint_attention_dim"]),
                pooled_width=int(config["pooled_projection_dim"]),
                guidance=bool(config["guidance_embeds"]),
            )
        except KeyError as error:
            raise InputError(f"The transformer's config has no {error}.") from error

    @property
    def width(self) -> int:
        """Hidden channels of a token."""
        return self.heads * self.head_dim

    @property
    def blocks(self) -> int:
        """Blocks of both kinds."""
        return self.double_blocks + self.single_blocks

    @property
    def modulation_parameters(self) -> int:
        """Parameters that act on one vector a step, however many tokens there are."""
        width = self.width
        per_double, per_single = 2 * linear(width, 6 * width), linear(width, 3 * width)
        return (
            self.double_blocks * per_double
            + self.single_blocks * per_single
            + linear(width, 2 * width)
        )

    @property
    def vector_flop(self) -> int:
        """FLOP a call of the layers that act on one vector, however many tokens there are."""
        width = self.width
        clocks = (2 if self.guidance else 1) * (TIME_CHANNELS * width + width**2)
        text = self.pooled_width * width + width**2
        layers = 12 * self.double_blocks + 3 * self.single_blocks + 2
        return 2 * (clocks + text + layers * width**2)

    @property
    def parameters(self) -> int:
        """All parameters of the transformer."""
        width, square = self.width, linear(self.width, self.width)
        mlp = linear(width, 4 * width) + linear(4 * width, width)
        double = 8 * square + 2 * mlp + 4 * self.head_dim
        single = (
            3 * square + linear(width, 4 * width) + linear(5 * width, width) + 2 * self.head_dim
        )
        clock = linear(TIME_CHANNELS, width) + square
        embedders = (
            linear(self.channels, width)
            + linear(self.text_width, width)
            + clock * (2 if self.guidance else 1)
            + linear(self.pooled_width, width)
            + square
        )
        blocks = self.double_blocks * double + self.single_blocks * single
        return blocks + self.modulation_parameters + embedders + linear(width, self.channels)


def flux_kontext_dev() -> FluxConfig:
    """The config of FLUX.1 Kontext dev's transformer."""
    return FluxConfig.from_dict(json.loads((CONFIGS / "flux_kontext_dev.json").read_text()))


def linear(inputs: int, outputs: int) -> int:
    """Weights and biases of a linear layer."""
    return (inputs + 1) * outputs
