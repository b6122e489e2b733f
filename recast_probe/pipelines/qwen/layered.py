"""Qwen-Image-Layered: one picture taken apart into transparent layers.

Inside attention the sequence is [text; generation; reference], and the generation is several images
of one size, one after the other: the whole picture, which is not decoded, and then every layer from
the lowest. Five things differ from Qwen-Image-Edit:

- The size is the reference's, scaled to ``resolution`` squared (640 or 1024).
- The reference is no part of the text. The pipeline writes a caption of it in place of an empty
  prompt; its length is not known before, so an empty prompt is refused.
- The third number of a rotary position is the layer, and -1 for the reference.
- The shift of the schedule follows the number of reference tokens.
- The output is a list of layers, with transparency where the autoencoder has it; the image of a
  result is composed of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from recast_probe._utils.checks import check_int
from recast_probe.errors import InputError, VerificationError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.base import Schedule
from recast_probe.pipelines.flow_schedule import shifted_schedule, unshifted_sigmas
from recast_probe.pipelines.qwen.text import ReadsOnePrompt
from recast_probe.pipelines.qwen.transformer import QwenTransformer

RESOLUTIONS = (640, 1024)
UNSHIFTED_TOKENS = 256
OWN = ("layers", "resolution", "max_sequence_length")
"""Arguments of the pipeline whose defaults decide the layout."""


class QwenImageLayered(ReadsOnePrompt, QwenTransformer):
    """``QwenImageLayeredPipeline`` of diffusers: the reference is the picture that is taken apart.

    Examples:
        >>> from recast_probe.testing.tiny_qwen import build_layered
        >>> QwenImageLayered(build_layered()).block_kinds
        ['double', 'double', 'double']
    """

    name = "qwen-image-layered"
    pipelines = ("QwenImageLayeredPipeline",)
    # the pipeline asks the text encoder for its dtype, whatever the text
    parts = (*QwenTransformer.parts, "text_encoder")
    text_parts = ("tokenizer",)
    unserved: Mapping[str, str] = {
        "use_en_prompt": "has no effect, since no caption is written where there is a prompt",
        "prompt_embeds": "cannot be given, since the pipeline writes a caption all the same",
    }
    rope = "QwenEmbedLayer3DRope"
    layered = "layer"
    layout_prompt = "."

    @property
    def reads_alpha(self) -> bool:
        return int(self.pipe.vae.config.input_channels) == 4

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """As in ``Family``.

        Raises:
            InputError: values of ``layers`` or ``resolution`` that there are not.
        """
        own = {name: self.call_default(name) for name in OWN}
        found = own | super().call_arguments(overrides)
        check_int("layers", found["layers"], 1)
        if found["resolution"] not in RESOLUTIONS:
            raise InputError(f"resolution must be 640 or 1024, not {found['resolution']!r}.")
        return found

    def reference_arguments(
        self, images: Sequence[Image.Image], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        given = super().reference_arguments(images, arguments)
        mode = "RGBA" if self.reads_alpha else "RGB"
        return {name: image.convert(mode) for name, image in given.items()}

    def predict_layout(
        self, image: Image.Image | None, arguments: Mapping[str, Any]
    ) -> TokenLayout:
        from diffusers.pipelines.qwenimage.pipeline_qwenimage_layered import calculate_dimensions

        image, side = arguments["image"], arguments["resolution"]
        grid = self.grid_of(calculate_dimensions(side * side, image.width / image.height))
        text = self.text_tokens(arguments, "conditional")
        return TokenLayout(text, replace(grid, layers=arguments["layers"] + 1), (grid,))

    def image_grids(self, inputs: Mapping[str, Any]) -> list[Grid]:
        *layers, reference = super().image_grids(inputs)
        if len(set(layers)) != 1:
            raise VerificationError(
                f"The layers of the generation have the sizes {', '.join(map(str, layers))}; this "
                f"pipeline does not lay out tokens as {self.name} does."
            )
        return [replace(layers[0], layers=len(layers)), reference]

    def predict_schedule(self, layout: TokenLayout, arguments: Mapping[str, Any]) -> Schedule:
        steps, shift = arguments["num_inference_steps"], layout.reference_tokens / UNSHIFTED_TOKENS
        return shifted_schedule(self.pipe, steps, unshifted_sigmas(arguments), shift**0.5)

    def prompt_of(self, arguments: Mapping[str, Any], branch: str) -> str:
        prompt = super().prompt_of(arguments, branch)
        if branch == "conditional" and prompt in ("", " "):
            raise InputError(
                f"The prompt is empty, and {type(self.pipe).__name__} would write one itself, of "
                "a length that nobody knows beforehand; give a prompt, such as what "
                "pipe.get_image_caption(image) writes."
            )
        return prompt

    def longest_text(self, arguments: Mapping[str, Any]) -> int | None:
        return arguments["max_sequence_length"]

    def prompt_ids(self, prompt: str, arguments: Mapping[str, Any]) -> np.ndarray:
        text = self.pipe.prompt_template_encode.format(prompt)
        ids = self.pipe.tokenizer(text, verbose=False)["input_ids"]
        return np.asarray(ids[self.pipe.prompt_template_encode_start_idx :], np.int64)

    def _encode(self, arguments: Mapping[str, Any], branch: str) -> torch.Tensor:
        longest = arguments["max_sequence_length"]
        prompt = self.prompt_of(arguments, branch)
        return self.pipe.encode_prompt(prompt, max_sequence_length=longest)[0]
