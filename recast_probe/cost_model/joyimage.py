"""The numbers of a JoyImage transformer: double-stream blocks that are modulated by tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Self

from recast_probe.cost_model.config import TIME_CHANNELS, TransformerConfig, linear
from recast_probe.errors import InputError


@dataclass(frozen=True)
class JoyImageConfig(TransformerConfig):
    """Sizes of a `JoyImageEditTransformer3DModel`. The timestep is projected once for all blocks;
    each adds it to a table of its own, which is no work of a linear layer.

    Attributes:
        mlp_ratio: hidden channels of an MLP by the width.

    Examples:
        >>> config = rp.cost_model.published_config("joyimage-edit")
        >>> config.blocks, config.width, round(config.parameters / 1e9, 1)
        (40, 4096, 16.3)
    """

    class_name: ClassVar[str] = "JoyImageEditTransformer3DModel"

    mlp_ratio: float

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """From a config in the format of diffusers, which has other names than FLUX.1's.

        Raises:
            InputError: of another class, without one of the sizes, or with one that is not known.
        """
        try:
            width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
            named = {
                "num_single_layers": 0,
                "attention_head_dim": width // heads,
                "joint_attention_dim": config["text_dim"],
                "in_channels": int(config["in_channels"]) * prod(config["patch_size"]),
            }
        except KeyError as error:
            raise InputError(f"The transformer's config has no {error}.") from error
        read, written = config["in_channels"], config.get("out_channels") or config["in_channels"]
        if read != written or width % heads:
            raise InputError(
                f"The arithmetic knows JoyImage transformers that read and write as many channels "
                f"and divide their width by their heads, not {read} and {written} channels, and "
                f"{width} by {heads}."
            )
        return super().from_dict({**config, **named})

    @classmethod
    def _own(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        return {"mlp_ratio": float(config["mlp_width_ratio"])}

    @property
    def mlp_width(self) -> int:
        return int(self.width * self.mlp_ratio)

    @property
    def block_linear(self) -> int:
        return 4 * self.width**2 + 2 * self.width * self.mlp_width

    @property
    def text_linear(self) -> int:
        return super().text_linear + self.width**2

    @property
    def fresh_linear(self) -> dict[str, int]:
        return dict.fromkeys(("double", "single"), 2 * self.width * self.mlp_width)

    @property
    def modulation_parameters(self) -> int:
        return self.double_blocks * 2 * 6 * self.width + linear(self.width, 6 * self.width)

    @property
    def modulation_linear(self) -> int:
        return TIME_CHANNELS * self.width + 7 * self.width**2

    @property
    def parameters(self) -> int:
        width, square = self.width, linear(self.width, self.width)
        mlp = linear(width, self.mlp_width) + linear(self.mlp_width, width)
        blocks = self.double_blocks * 2 * (4 * square + mlp + 2 * self.head_dim)
        embedders = (
            linear(self.channels, width)
            + linear(TIME_CHANNELS, width)
            + linear(self.text_width, width)
            + 2 * square
        )
        return blocks + self.modulation_parameters + embedders + linear(width, self.channels)
