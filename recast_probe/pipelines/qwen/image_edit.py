"""Qwen-Image-Edit: reference latents after the generation latents, and pictures in the text.

Inside attention the sequence is [text; generation; reference], in double-stream blocks only. The
transformer is not given positions but the shape of each image, ``img_shapes``; see
``qwen_positions`` for how pruned tokens keep theirs. Four things differ from FLUX.1 Kontext:

- The references also go to Qwen2.5-VL, which reads them together with the prompt: some **text
  tokens** are patches of the pictures, and those after them have read these (see ``qwen_text``).
  Dropping reference tokens, or cutting edges from them, leaves this way open. The pipelines make no
  image without a picture, so there is no run without a reference to compare with.
- The number of text tokens follows the prompt and is another one in each branch of guidance.
- Every reference is scaled to one megapixel, whatever the output's size.
- With ``zero_cond_t`` (newer checkpoints) reference tokens are modulated for timestep 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from recast_probe.layout import TokenLayout
from recast_probe.pipelines.qwen.text import ReadsPictures, text_token_ids
from recast_probe.pipelines.qwen.transformer import QwenTransformer

REFERENCE_AREA = 1024 * 1024


class QwenImageEdit(ReadsPictures, QwenTransformer):
    """``QwenImageEditPipeline`` of diffusers: the reference is the picture to edit, which the text
    has seen too.

    Examples:
        >>> from recast_probe.testing.tiny_qwen import build_tiny_pipeline
        >>> QwenImageEdit(build_tiny_pipeline()).heads
        2
    """

    name = "qwen-image-edit"
    pipelines: tuple[str, ...] = ("QwenImageEditPipeline",)
    packages = ("torchvision",)
    # by which of the references the pipeline chooses the size of the output
    measure = 0

    def reference_arguments(
        self, images: Sequence[Image.Image], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        given = super().reference_arguments(images, arguments)
        return given | self._output_size(images, arguments)

    def _output_size(
        self, images: Sequence[Image.Image], arguments: Mapping[str, Any]
    ) -> dict[str, int]:
        width, height = self.reference_size(images[self.measure]) if images else (0, 0)
        return {
            "height": arguments.get("height") or height,
            "width": arguments.get("width") or width,
        }

    def reference_size(self, image: Image.Image) -> tuple[int, int]:
        """Width and height in pixels to which the pipeline scales a reference."""
        from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import calculate_dimensions

        width, height, _ = calculate_dimensions(REFERENCE_AREA, image.width / image.height)
        return width, height

    def references(self, arguments: Mapping[str, Any]) -> list[Image.Image]:
        """The reference images among the arguments of a call."""
        return [arguments["image"]] if "image" in arguments else []

    def pictures(self, images: Sequence[Image.Image]) -> tuple[str, list[tuple[int, int]]]:
        """What stands before the prompt in the template, and the (width, height) of each picture
        that Qwen2.5-VL sees."""
        return "", [self.reference_size(image) for image in images]

    def scaled_for_text(self, images: Sequence[Image.Image]) -> Any:
        """The pictures as the pipeline hands them to Qwen2.5-VL."""
        width, height = self.reference_size(images[0])
        return self.pipe.image_processor.resize(images[0], height, width)

    def predict_layout(
        self, image: Image.Image | None, arguments: Mapping[str, Any]
    ) -> TokenLayout:
        grids = [self.grid_of(self.reference_size(each)) for each in self.references(arguments)]
        return TokenLayout(
            text=self.text_tokens(arguments, "conditional"),
            generation=self.grid_of((arguments["width"], arguments["height"])),
            references=tuple(grids),
        )

    def prompt_ids(self, prompt: str, arguments: Mapping[str, Any]) -> np.ndarray:
        before, sizes = self.pictures(self.references(arguments))
        return text_token_ids(self.pipe, before + prompt, sizes)

    def _encode(self, arguments: Mapping[str, Any], branch: str) -> torch.Tensor:
        (name,) = self.texts[branch].prompts
        pictures = self.scaled_for_text(self.references(arguments))
        return self.pipe.encode_prompt(arguments[name], image=pictures)[0]
