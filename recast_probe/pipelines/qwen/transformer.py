"""Qwen-Image's transformer: parts, blocks, inputs and positions.

It has double-stream blocks only, and is not given positions but the shape of each image.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from math import prod
from typing import Any, ClassVar

import torch

from recast_probe.errors import UnsupportedPipelineError, VerificationError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.base import TextInput
from recast_probe.pipelines.qwen.positions import KeptShapes, positions_of_kept
from recast_probe.pipelines.sequence import SequenceFamily
from recast_probe.pipelines.transformer import TransformerFamily


class QwenTransformer(SequenceFamily):
    """What pipelines with a ``QwenImageTransformer2DModel`` share; not a family itself."""

    parts = ("transformer", "vae", "scheduler", "image_processor")
    text_parts = ("processor", "text_encoder")
    texts: Mapping[str, TextInput] = {
        "conditional": TextInput(("prompt",), "prompt_embeds", mask="prompt_embeds_mask"),
        "unconditional": TextInput(
            ("negative_prompt",), "negative_prompt_embeds", mask="negative_prompt_embeds_mask"
        ),
    }
    stacks = (("double", "transformer_blocks"),)
    processors: ClassVar[dict[str, str]] = {"double": "QwenDoubleStreamAttnProcessor2_0"}
    takes_attention_mask = False

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
        if type(getattr(self.transformer, "pos_embed", None)).__name__ != "QwenEmbedRope":
            return TransformerFamily.lacking(self) or ["transformer.pos_embed (QwenEmbedRope)"]
        return super().lacking()

    def keep_rotary_positions(self) -> AbstractContextManager[None]:
        return positions_of_kept(self.pipe.transformer.pos_embed)

    def image_grids(self, inputs: Mapping[str, Any]) -> list[Grid]:
        shapes, tokens = inputs["img_shapes"], int(inputs["hidden_states"].shape[1])
        first = [tuple(int(side) for side in shape) for shape in shapes[0]]
        if (
            any(list(each) != list(shapes[0]) for each in shapes)
            or any(frames != 1 for frames, _, _ in first)
            or sum(map(prod, first)) != tokens
        ):
            raise VerificationError(
                f"The transformer was given {tokens} image tokens and the shapes {shapes}; this "
                f"pipeline does not lay out tokens as {self.name} does."
            )
        return [Grid(rows, columns) for _, rows, columns in first]

    def modulated_input(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        transformer = self.pipe.transformer
        tokens = transformer.img_in(inputs["hidden_states"][:, : layout.generation.size])
        embedding = transformer.time_text_embed(inputs["timestep"].to(tokens.dtype), tokens)
        first: Any = self.block_modules()[0]
        modulation = first.img_mod(embedding).chunk(2, dim=-1)[0]
        return first._modulate(first.img_norm1(tokens), modulation)[0]

    def kept_positions(
        self, inputs: Mapping[str, Any], rows: torch.Tensor, references: int
    ) -> dict[str, Any]:
        return {"img_shapes": KeptShapes(inputs["img_shapes"], rows, references)}
