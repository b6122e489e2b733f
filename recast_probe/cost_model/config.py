"""The numbers of a transformer that decide its parameters and its work."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from recast_probe.errors import InputError

TIME_CHANNELS = 256  # sinusoidal channels of a timestep, fixed in diffusers for FLUX.1


@dataclass(frozen=True)
class TransformerConfig(ABC):
    """Sizes of a transformer of double-stream and single-stream blocks.

    Attributes:
        class_name: its class in diffusers.
        double_blocks, single_blocks: numbers of blocks.
        heads, head_dim: attention heads of a block, and channels of a head.
        channels: values of a packed latent token.
        text_width: of the text encoder's states.

    Examples:
        >>> config = rp.cost_model.published_config("flux2-dev")
        >>> config.class_name, config.blocks, config.width
        ('Flux2Transformer2DModel', 56, 6144)
    """

    class_name: ClassVar[str]

    double_blocks: int
    single_blocks: int
    heads: int
    head_dim: int
    channels: int
    text_width: int

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """From a config in the format of diffusers.

        Raises:
            InputError: of another class, or without one of the sizes.
        """
        name = config.get("_class_name", cls.class_name)
        if name != cls.class_name:
            raise InputError(f"The arithmetic knows {cls.class_name}, not {name}.")
        try:
            return cls(
                double_blocks=int(config["num_layers"]),
                single_blocks=int(config["num_single_layers"]),
                heads=int(config["num_attention_heads"]),
                head_dim=int(config["attention_head_dim"]),
                channels=int(config["in_channels"]),
                text_width=int(config["joint_attention_dim"]),
                **cls._own(config),
            )
        except KeyError as error:
            raise InputError(f"The transformer's config has no {error}.") from error

    @classmethod
    @abstractmethod
    def _own(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Sizes that only this class has."""

    @property
    def width(self) -> int:
        """Hidden channels of a token."""
        return self.heads * self.head_dim

    @property
    def blocks(self) -> int:
        """Blocks of both kinds."""
        return self.double_blocks + self.single_blocks

    @property
    @abstractmethod
    def mlp_width(self) -> int:
        """Hidden channels of a block's MLP, after its activation."""

    @property
    @abstractmethod
    def block_linear(self) -> int:
        """Multiply-adds of a block's linear layers for one token, alike in both kinds."""

    @property
    def text_linear(self) -> int:
        """Multiply-adds for one text token outside the blocks."""
        return self.width * self.text_width

    @property
    @abstractmethod
    def fresh_linear(self) -> dict[str, int]:
        """Multiply-adds for one fresh token in a step of token-wise caching, by kind of block."""

    @property
    @abstractmethod
    def modulation_parameters(self) -> int:
        """Parameters that shift, scale and gate; they act on one vector a step, whatever the
        number of tokens."""

    @property
    @abstractmethod
    def modulation_linear(self) -> int:
        """Multiply-adds of all layers that act on one vector a step."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """All parameters of the transformer."""


@dataclass(frozen=True)
class FluxConfig(TransformerConfig):
    """Sizes of a `FluxTransformer2DModel`.

    Attributes:
        pooled_width: of the pooled CLIP state; 0 where there is none.
        guidance: whether the guidance scale is embedded.

    Examples:
        >>> config = rp.cost_model.flux_kontext_dev()
        >>> config.blocks, config.width, round(config.parameters / 1e9, 1)
        (57, 3072, 11.9)
    """

    class_name: ClassVar[str] = "FluxTransformer2DModel"

    pooled_width: int
    guidance: bool

    @classmethod
    def _own(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "pooled_width": int(config["pooled_projection_dim"]),
            "guidance": bool(config["guidance_embeds"]),
        }

    @property
    def mlp_width(self) -> int:
        return 4 * self.width

    @property
    def block_linear(self) -> int:
        return 4 * self.width**2 + 2 * self.width * self.mlp_width

    @property
    def fresh_linear(self) -> dict[str, int]:
        # a single-stream block's last projection takes attention's output as well
        mlp = 2 * self.width * self.mlp_width
        return {"double": mlp, "single": mlp + self.width**2}

    @property
    def modulation_linear(self) -> int:
        width = self.width
        clocks = (2 if self.guidance else 1) * (TIME_CHANNELS * width + width**2)
        text = self.pooled_width * width + width**2 if self.pooled_width else 0
        layers = 12 * self.double_blocks + 3 * self.single_blocks + 2
        return clocks + text + layers * width**2

    @property
    def modulation_parameters(self) -> int:
        width = self.width
        per_double, per_single = 2 * linear(width, 6 * width), linear(width, 3 * width)
        return (
            self.double_blocks * per_double
            + self.single_blocks * per_single
            + linear(width, 2 * width)
        )

    @property
    def parameters(self) -> int:
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
            + (linear(self.pooled_width, width) + square if self.pooled_width else 0)
        )
        blocks = self.double_blocks * double + self.single_blocks * single
        return blocks + self.modulation_parameters + embedders + linear(width, self.channels)


@dataclass(frozen=True)
class Flux2Config(TransformerConfig):
    """Sizes of a `Flux2Transformer2DModel`: no biases, an MLP with a gate (SwiGLU), and one
    modulation for all blocks of a kind.

    Attributes:
        mlp_ratio: hidden channels of an MLP, after the gate, by the width.
        time_channels: sinusoidal channels of a timestep.
        guidance: whether the guidance scale is embedded.

    Examples:
        >>> config = rp.cost_model.published_config("flux2-klein-4b")
        >>> config.blocks, config.width, round(config.parameters / 1e9, 1)
        (25, 3072, 3.9)
    """

    class_name: ClassVar[str] = "Flux2Transformer2DModel"

    mlp_ratio: float
    time_channels: int
    guidance: bool

    @classmethod
    def _own(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "mlp_ratio": float(config["mlp_ratio"]),
            "time_channels": int(config["timestep_guidance_channels"]),
            "guidance": bool(config["guidance_embeds"]),
        }

    @property
    def mlp_width(self) -> int:
        return int(self.width * self.mlp_ratio)

    @property
    def block_linear(self) -> int:
        return 4 * self.width**2 + 3 * self.width * self.mlp_width

    @property
    def fresh_linear(self) -> dict[str, int]:
        # a single-stream block's first projection gives query, key and value with the MLP's input
        return {"double": 3 * self.width * self.mlp_width, "single": self.block_linear}

    @property
    def modulation_parameters(self) -> int:
        return self.width**2 * (2 * 6 + 3 + 2)

    @property
    def modulation_linear(self) -> int:
        return self.modulation_parameters + self._clocks

    @property
    def _clocks(self) -> int:
        clock = self.time_channels * self.width + self.width**2
        return clock * (2 if self.guidance else 1)

    @property
    def parameters(self) -> int:
        width = self.width
        # a double-stream block has separate layers for each stream
        double = 2 * self.block_linear + 4 * self.head_dim
        single = self.block_linear + 2 * self.head_dim
        ends = width * (2 * self.channels + self.text_width)
        blocks = self.double_blocks * double + self.single_blocks * single
        return blocks + self.modulation_linear + ends


def linear(inputs: int, outputs: int) -> int:
    """Weights and biases of a linear layer."""
    return (inputs + 1) * outputs
