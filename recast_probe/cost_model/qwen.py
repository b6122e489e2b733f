"""The numbers of a Qwen-Image transformer: FLUX.1's double-stream blocks, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from recast_probe.cost_model.config import TIME_CHANNELS, FluxConfig, linear
from recast_probe.errors import InputError


@dataclass(frozen=True)
class QwenImageConfig(FluxConfig):
    """Sizes of a `QwenImageTransformer2DModel`; a block has the layers of FLUX.1's double-stream
    one. There is no pooled text, and its width is 0.

    Attributes:
        zero_cond_t: image tokens are modulated for two timesteps, the second of which is 0.
        additional_t_cond: the timestep has a learned vector added, one of two, as in
            Qwen-Image-Layered.

    Examples:
        >>> config = rp.cost_model.published_config("qwen-image-edit")
        >>> config.double_blocks, config.single_blocks, round(config.parameters / 1e9, 1)
        (60, 0, 20.4)
    """

    class_name: ClassVar[str] = "QwenImageTransformer2DModel"

    zero_cond_t: bool = False
    additional_t_cond: bool = False

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Self:
        """From a config in the format of diffusers.

        Raises:
            InputError: of another class, without one of the sizes, or with one that is not known.
        """
        return super().from_dict({**config, "num_single_layers": 0})

    @classmethod
    def _own(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        channels, guidance = int(config["in_channels"]), bool(config.get("guidance_embeds"))
        written = int(config["patch_size"]) ** 2 * int(config["out_channels"] or channels)
        if written != channels or guidance:
            raise InputError(
                f"The arithmetic knows Qwen-Image transformers that read and write as many values "
                f"a token and embed no guidance scale, not {channels} and {written} values with "
                f"guidance_embeds={guidance}."
            )
        return {
            "pooled_width": 0,
            "guidance": False,
            "zero_cond_t": bool(config.get("zero_cond_t", False)),
            "additional_t_cond": bool(config.get("use_additional_t_cond", False)),
        }

    @property
    def parameters(self) -> int:
        width, square = self.width, linear(self.width, self.width)
        mlp = linear(width, 4 * width) + linear(4 * width, width)
        embedders = (
            linear(self.channels, width)
            + self.text_width
            + linear(self.text_width, width)
            + linear(TIME_CHANNELS, width)
            + square
            + (2 * width if self.additional_t_cond else 0)
        )
        blocks = self.double_blocks * (8 * square + 2 * mlp + 4 * self.head_dim)
        return blocks + self.modulation_parameters + embedders + linear(width, self.channels)

    @property
    def modulation_linear(self) -> int:
        # some layers act on two vectors with zero_cond_t
        times = 2 if self.zero_cond_t else 1
        clock = TIME_CHANNELS * self.width + self.width**2
        return times * clock + (self.double_blocks * 6 * (times + 1) + 2) * self.width**2
