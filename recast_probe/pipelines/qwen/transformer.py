"""Qwen-Image's transformer: parts, blocks, inputs, and its reference tokens dropped or merged.

It has double-stream blocks only, and is not given positions but the shape of each image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from math import prod
from typing import Any, ClassVar

import numpy as np
import torch

from recast_probe.errors import UnsupportedPipelineError, VerificationError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.base import AttentionCall, Family, TextInput
from recast_probe.pipelines.qwen.positions import KeptShapes, positions_of_kept
from recast_probe.selection.merging import Groups


class QwenTransformer(Family):
    """What pipelines with a ``QwenImageTransformer2DModel`` share; not a family itself."""

    parts = ("transformer", "vae", "scheduler", "image_processor")
    text_parts = ("processor", "text_encoder")
    texts: Mapping[str, TextInput] = {
        "conditional": TextInput(("prompt",), "prompt_embeds", mask="prompt_embeds_mask"),
        "unconditional": TextInput(
            ("negative_prompt",), "negative_prompt_embeds", mask="negative_prompt_embeds_mask"
        ),
    }
    operations = ("self_processor_0", "dispatch_attention_fn_0")
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
        transformer: Any = self.transformer
        if not isinstance(getattr(transformer, "transformer_blocks", None), torch.nn.ModuleList):
            return ["transformer.transformer_blocks"]
        if type(getattr(transformer, "pos_embed", None)).__name__ != "QwenEmbedRope":
            return ["transformer.pos_embed (QwenEmbedRope)"]
        return self.other_processors()

    @property
    def transformer(self) -> torch.nn.Module:
        return self.pipe.transformer

    def block_modules(self) -> list[torch.nn.Module]:
        return list(self.pipe.transformer.transformer_blocks)

    def block_lists(self) -> list[tuple[torch.nn.Module, str]]:
        return [(self.transformer, "transformer_blocks")]

    def attention_calls(self) -> list[AttentionCall]:
        return [
            AttentionCall("double", f"transformer_blocks.{index}.attn", self.operations)
            for index in range(len(self.block_modules()))
        ]

    def keep_rotary_positions(self) -> AbstractContextManager[None]:
        return positions_of_kept(self.pipe.transformer.pos_embed)

    @property
    def heads(self) -> int:
        return int(self.pipe.transformer.config.num_attention_heads)

    @property
    def width(self) -> int:
        return self.heads * int(self.pipe.transformer.config.attention_head_dim)

    def observed_layout(self, inputs: Mapping[str, Any]) -> TokenLayout:
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
        generation, *references = (Grid(rows, columns) for _, rows, columns in first)
        return TokenLayout(
            text=int(inputs["encoder_hidden_states"].shape[1]),
            generation=generation,
            references=tuple(references),
        )

    def observed_timestep(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        return inputs["timestep"].detach().double().cpu() * 1000

    def observed_embedding(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        return inputs["encoder_hidden_states"]

    def modulated_input(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        transformer = self.pipe.transformer
        tokens = transformer.img_in(inputs["hidden_states"][:, : layout.generation.size])
        embedding = transformer.time_text_embed(inputs["timestep"].to(tokens.dtype), tokens)
        first: Any = self.block_modules()[0]
        modulation = first.img_mod(embedding).chunk(2, dim=-1)[0]
        return first._modulate(first.img_norm1(tokens), modulation)[0]

    def keep_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, kept: Sequence[int] | np.ndarray
    ) -> dict[str, Any]:
        states, generation = inputs["hidden_states"], layout.generation.size
        rows = torch.cat(
            [torch.arange(generation), generation + torch.as_tensor(np.asarray(kept, np.int64))]
        ).to(states.device)
        return {
            **inputs,
            "hidden_states": states.index_select(1, rows),
            "img_shapes": KeptShapes(inputs["img_shapes"], rows, len(kept)),
        }

    def reference_features(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        return inputs["hidden_states"][:, layout.generation.size :]

    def merge_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, groups: Groups, *, proportional: bool
    ) -> dict[str, Any]:
        merged = groups.mean(self.reference_features(inputs, layout))
        edited = self.keep_reference_tokens(inputs, layout, groups.kept.numpy())
        generation = inputs["hidden_states"][:, : layout.generation.size]
        edited["hidden_states"] = torch.cat([generation, merged], dim=1)
        return edited
