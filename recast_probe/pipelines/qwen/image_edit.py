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

from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.qwen.text import text_facts, text_token_ids, vision_token_mask
from recast_probe.pipelines.qwen.transformer import QwenTransformer

REFERENCE_AREA = 1024 * 1024


class QwenImageEdit(QwenTransformer):
    """``QwenImageEditPipeline`` of diffusers, with one reference.

    Examples:
        >>> from recast_probe.testing.tiny_qwen import build_tiny_pipeline
        >>> QwenImageEdit(build_tiny_pipeline()).heads
        2
    """

    name = "qwen-image-edit"
    pipelines: tuple[str, ...] = ("QwenImageEditPipeline",)
    needs_reference = True
    packages = ("torchvision",)
    # by which of the references the pipeline chooses the size of the output
    measure = 0

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        return {self.guided_by: self.call_default(self.guided_by), **overrides}

    def prepare_reference(self, image: Image.Image, overrides: Mapping[str, Any]) -> Image.Image:
        """The image as it is: the pipeline scales it to one megapixel itself."""
        return image

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
        grids = [self._grid(self.reference_size(each)) for each in self.references(arguments)]
        return TokenLayout(
            text=self.text_tokens(arguments, "conditional"),
            generation=self._grid((arguments["width"], arguments["height"])),
            references=tuple(grids),
        )

    def text_tokens(self, arguments: Mapping[str, Any], branch: str) -> int:
        given = self.given_embeddings(arguments, branch)
        return len(self._ids(arguments, branch)) if given is None else given.shape[1]

    def _grid(self, size: tuple[int, int]) -> Grid:
        (width, height), pixels = size, self.token_pixels()
        if min(width, height) < pixels:
            raise InputError(
                f"An image of {width} x {height} pixels is smaller than one token ({pixels} x "
                f"{pixels} pixels); choose a larger or squarer image or output."
            )
        return Grid(rows=height // pixels, columns=width // pixels)

    def _ids(self, arguments: Mapping[str, Any], branch: str) -> np.ndarray:
        (name,) = self.texts[branch].prompts
        prompt = arguments[name]
        if not isinstance(prompt, str):
            raise InputError(
                f"{type(self.pipe).__name__} runs one prompt at a time, not {len(prompt)}; call "
                "the probe for each of them."
            )
        before, sizes = self.pictures(self.references(arguments))
        return text_token_ids(self.pipe, before + prompt, sizes)

    def _ids_by_branch(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        self.check_prompts_known(arguments)
        names = self.branch_names(arguments)
        return {branch: self._ids(arguments, branch) for branch in names}

    def _encode(self, arguments: Mapping[str, Any], branch: str) -> torch.Tensor:
        (name,) = self.texts[branch].prompts
        pictures = self.scaled_for_text(self.references(arguments))
        return self.pipe.encode_prompt(arguments[name], image=pictures)[0]

    def padding_tokens(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        # a prompt that runs alone is not filled up
        return {
            branch: np.zeros((1, len(ids)), bool)
            for branch, ids in self._ids_by_branch(arguments).items()
        }

    def vision_tokens(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return {
            branch: vision_token_mask(self.pipe, ids)[None]
            for branch, ids in self._ids_by_branch(arguments).items()
        }

    def call_facts(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for branch in self.branch_names(arguments):
            given = self.given_embeddings(arguments, branch)
            if given is None:
                found[branch] = text_facts(self.pipe, self._ids(arguments, branch))
            else:  # which of them are vision tokens is not known
                found[branch] = {"tokens": given.shape[1]}
        return {"text": found}
