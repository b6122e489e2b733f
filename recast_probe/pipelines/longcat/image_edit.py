"""LongCat-Image-Edit: FLUX.1's blocks, and a text that Qwen2.5-VL has read with the picture.

Inside attention the sequence is [text; generation; reference] in double-stream and single-stream
blocks alike. ``img_ids`` holds (image, row, column) of each image token: image 1 is the generation,
2 the reference, and both have the same rows and columns. Five things differ from FLUX.1 Kontext:

- The output has the size to which the pipeline scales the reference, a megapixel with sides that
  are multiples of 16; there is no argument for it.
- The reference goes to Qwen2.5-VL as well, at half its size: the first **text tokens** are patches
  of the picture. The prompt's tokens are filled up to 512, and the padding is attended to.
- With ``guidance_scale`` above 1 the transformer is called a second time, with ``negative_prompt``,
  the empty one where none is given. The Turbo models run in few steps with ``guidance_scale=1``.
- One prompt a call.
- The transformer embeds the timestep alone, and takes no attention mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from recast_probe.layout import TokenLayout
from recast_probe.pipelines.base import TextInput
from recast_probe.pipelines.flux.base import MEGAPIXEL
from recast_probe.pipelines.flux.cached_blocks import FLUX_BLOCKS
from recast_probe.pipelines.flux.sequence import FluxSequence
from recast_probe.pipelines.longcat.text import text_ids
from recast_probe.pipelines.qwen.text import ReadsPictures


class LongCatImageEdit(ReadsPictures, FluxSequence):
    """``LongCatImageEditPipeline`` of diffusers: the reference is the picture to edit, which the
    text has seen too.

    Examples:
        >>> from recast_probe.testing.tiny_longcat import build_tiny_pipeline
        >>> LongCatImageEdit(build_tiny_pipeline()).block_kinds
        ['double', 'double', 'single', 'single', 'single']
    """

    name = "longcat-image-edit"
    pipelines = ("LongCatImageEditPipeline",)
    parts = ("transformer", "vae", "scheduler", "image_processor")
    text_parts = ("tokenizer", "text_encoder", "text_processor")
    texts: Mapping[str, TextInput] = {
        "conditional": TextInput(("prompt",), "prompt_embeds"),
        "unconditional": TextInput(("negative_prompt",), "negative_prompt_embeds"),
    }
    unserved: Mapping[str, str] = {
        "prompt_embeds": "fails in the pipeline, which counts prompts all the same",
        "joint_attention_kwargs": "has no effect, since the transformer takes none",
    }
    guided_by = "guidance_scale"
    leaves_flow_sigmas = False
    takes_attention_mask = False
    processors: ClassVar[dict[str, str]] = dict.fromkeys(FLUX_BLOCKS, "LongCatImageAttnProcessor")
    cached_types = FLUX_BLOCKS
    remedy = "set diffusers' own with pipe.transformer.set_attn_processor"

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """As in ``Family``, with the empty negative prompt where guidance needs one."""
        found = super().call_arguments(overrides)
        if found[self.guided_by] > 1 and "negative_prompt_embeds" not in found:
            found.setdefault("negative_prompt", "")
        return found

    def scaled_size(self, image: Image.Image) -> tuple[int, int]:
        """Width and height in pixels of the scaled reference, and of the output."""
        from diffusers.pipelines.longcat_image.pipeline_longcat_image_edit import (
            calculate_dimensions,
        )

        return calculate_dimensions(MEGAPIXEL, image.width / image.height)

    def size_for_text(self, image: Image.Image) -> tuple[int, int]:
        """Width and height in pixels of the picture that Qwen2.5-VL reads."""
        width, height = self.scaled_size(image)
        return width // 2, height // 2

    def predict_layout(
        self, image: Image.Image | None, arguments: Mapping[str, Any]
    ) -> TokenLayout:
        width, height = self.scaled_size(arguments["image"])
        grid = self.output_grid({"height": height, "width": width})
        # a text that cannot be read is refused, whichever branch it is of
        text = {name: self.text_tokens(arguments, name) for name in self.branch_names(arguments)}
        return TokenLayout(text["conditional"], grid, (grid,))

    def prompt_ids(self, prompt: str, arguments: Mapping[str, Any]) -> np.ndarray:
        return text_ids(self.pipe, prompt, self.size_for_text(arguments["image"]))[0]

    def padding_tokens(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        self.check_prompts_known(arguments)
        size = self.size_for_text(arguments["image"])
        return {
            branch: text_ids(self.pipe, self.prompt_of(arguments, branch), size)[1][None]
            for branch in self.branch_names(arguments)
        }

    def _encode(self, arguments: Mapping[str, Any], branch: str) -> torch.Tensor:
        scaled = arguments["image"]
        for width, height in (self.scaled_size(scaled), self.size_for_text(scaled)):
            scaled = self.pipe.image_processor.resize(scaled, height, width)
        prompt = [self.prompt_of(arguments, branch)]
        return self.pipe.encode_prompt(prompt=prompt, image=scaled)[0]

    def modulated_input(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        transformer: Any = self.transformer
        tokens = transformer.x_embedder(self.generation_rows(inputs["hidden_states"], layout))
        # the transformer takes it a thousandfold
        timestep = inputs["timestep"].to(tokens.dtype) * 1000
        embedding = transformer.time_embed(timestep, tokens.dtype)
        return transformer.transformer_blocks[0].norm1(tokens, emb=embedding)[0]
