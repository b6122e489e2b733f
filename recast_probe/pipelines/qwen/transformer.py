"""Qwen-Image's transformer: parts, blocks, inputs and positions.

It has double-stream blocks only, and is not given positions but the shape of each image.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch

from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.base import TextInput
from recast_probe.pipelines.position_ids import grids_of_shapes
from recast_probe.pipelines.qwen.positions import (
    KeptShapes,
    positions_of_kept,
)
from recast_probe.pipelines.sequence import SequenceFamily
from recast_probe.pipelines.transformer import TransformerFamily


class QwenTransformer(SequenceFamily):
    """What pipelines with a ``QwenImageTransformer2DModel`` share; not a family itself.

    Attributes:
        rope: diffusers' class of the rotary embedding.
    """

    parts: tuple[str, ...] = ("transformer", "vae", "scheduler", "image_processor")
    text_parts: tuple[str, ...] = ("processor", "text_encoder")
    texts: Mapping[str, TextInput] = {
        "conditional": TextInput(("prompt",), "prompt_embeds", mask="prompt_embeds_mask"),
        "unconditional": TextInput(
            ("negative_prompt",), "negative_prompt_embeds", mask="negative_prompt_embeds_mask"
        ),
    }
    stacks = (("double", "transformer_blocks"),)
    processors: ClassVar[dict[str, str]] = {"double": "QwenDoubleStreamAttnProcessor2_0"}
    takes_attention_mask = False
    rope = "QwenEmbedRope"

    def longest_sequence(self) -> int | None:
        return 1024  # as check_inputs of the pipelines

    def check(self) -> None:
        super().check()
        if self.pipe.transformer.config.guidance_embeds:
            raise UnsupportedPipelineError(
                "The transformer's config says guidance_embeds=True, and diffusers' own "
                "QwenImageTransformer2DModel cannot run with an embedded guidance scale."
            )

    def lacking(self) -> list[str]:
        if type(getattr(self.transformer, "pos_embed", None)).__name__ != self.rope:
            return TransformerFamily.lacking(self) or [f"transformer.pos_embed ({self.rope})"]
        return super().lacking()

    def keep_rotary_positions(self) -> AbstractContextManager[None]:
        return positions_of_kept(self.pipe.transformer.pos_embed)

    def image_grids(self, inputs: Mapping[str, Any]) -> list[Grid]:
        return grids_of_shapes(inputs["img_shapes"], inputs, self.name)

    def grid_of(self, size: tuple[int, int]) -> Grid:
        """Tokens of an image of so many pixels, (width, height).

        Raises:
            InputError: it is smaller than one.
        """
        (width, height), pixels = size, self.token_pixels()
        if min(width, height) < pixels:
            raise InputError(
                f"An image of {width} x {height} pixels is smaller than one token ({pixels} x "
                f"{pixels} pixels); choose a larger or squarer image or output."
            )
        return Grid(rows=height // pixels, columns=width // pixels)

    def modulated_input(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        transformer = self.pipe.transformer
        tokens = transformer.img_in(self.generation_rows(inputs["hidden_states"], layout))
        embedding = transformer.time_text_embed(
            inputs["timestep"].to(tokens.dtype), tokens, inputs.get("additional_t_cond")
        )
        first: Any = self.block_modules()[0]
        modulation = first.img_mod(embedding).chunk(2, dim=-1)[0]
        return first._modulate(first.img_norm1(tokens), modulation)[0]

    def kept_positions(
        self, inputs: Mapping[str, Any], rows: torch.Tensor, references: int
    ) -> dict[str, Any]:
        return {"img_shapes": KeptShapes(inputs["img_shapes"], rows)}
