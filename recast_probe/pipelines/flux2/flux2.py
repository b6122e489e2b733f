"""FLUX.2 and FLUX.2 klein: latents of one or several references after those of the generation.

Inside attention the sequence is [text; generation; reference 1; reference 2; ...] in double-stream
and single-stream blocks alike; a single-stream block projects query, key, value and its MLP's input
at once, and attends all the same. ``img_ids`` holds (image, row, column, 0) of each image token:
image 0 is the generation, and the references are 10, 20 and so on. ``txt_ids`` counts text tokens
along the last axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.base import TextInput
from recast_probe.pipelines.cached_blocks import CachedBlock
from recast_probe.pipelines.flux.base import LONGEST_PROMPT, MEGAPIXEL
from recast_probe.pipelines.flux.sequence import FluxSequence
from recast_probe.pipelines.flux2.cached_blocks import (
    CachedFlux2DoubleBlock,
    CachedFlux2SingleBlock,
    parameters,
)


class Flux2(FluxSequence):
    """``Flux2Pipeline`` of diffusers: the references are any number of pictures.

    Examples:
        >>> from recast_probe.testing.tiny_flux2 import build_flux2
        >>> Flux2(build_flux2()).block_kinds
        ['double', 'double', 'single', 'single', 'single']
    """

    name = "flux2"
    pipelines: tuple[str, ...] = ("Flux2Pipeline",)
    parts = ("transformer", "vae", "scheduler", "image_processor")
    text_parts = ("tokenizer", "text_encoder")
    # the guidance scale is embedded, where the model knows it at all
    texts: Mapping[str, TextInput] = {"conditional": TextInput(("prompt",), "prompt_embeds")}
    processors: ClassVar[dict[str, str]] = {
        "double": "Flux2AttnProcessor",
        "single": "Flux2ParallelSelfAttnProcessor",
    }
    cached_types: ClassVar[dict[str, type[CachedBlock]]] = {
        "double": CachedFlux2DoubleBlock,
        "single": CachedFlux2SingleBlock,
    }
    remedy = "set diffusers' own with pipe.transformer.set_attn_processor"

    def longest_sequence(self) -> int | None:
        if self.pipe.text_encoder is None:  # the text is given as embeddings
            return None
        return int(self.pipe.text_encoder.config.get_text_config().max_position_embeddings)

    def longest_prompt(self) -> int:
        """Text tokens of a prompt with its chat template, which is padded to this length."""
        if self.pipe.tokenizer is None:  # the text is given as embeddings
            return LONGEST_PROMPT
        tokenizer = getattr(self.pipe.tokenizer, "tokenizer", self.pipe.tokenizer)
        return min(int(tokenizer.model_max_length), LONGEST_PROMPT)

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        if overrides.get("caption_upsample_temperature"):
            raise InputError(
                "caption_upsample_temperature has the text encoder rewrite the prompt at random, "
                "so nothing about the run could be said beforehand; rewrite it first with "
                "pipe.upsample_prompt(...), and give the probe what comes out."
            )
        return {"max_sequence_length": self.longest_prompt(), **overrides}

    def prepare_reference(self, image: Image.Image, overrides: Mapping[str, Any]) -> Image.Image:
        """The image as it is: the pipeline itself scales it down and crops it.

        Raises:
            InputError: smaller or longer than the pipeline takes.
        """
        self.check_one_token(image)
        try:
            self.pipe.image_processor.check_image_input(image)
        except ValueError as error:
            raise InputError(f"The reference image does not fit {self.name}: {error}.") from error
        return image

    def reference_arguments(
        self, images: Sequence[Image.Image], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The images as a list, and the size of the output.

        As in the pipeline, an output whose size is not given has that of the first reference;
        without a reference, that of the images that the model was made for.
        """
        if images:
            grid, pixels = self._reference_grid(images[0]), self.token_pixels()
            height, width = grid.rows * pixels, grid.columns * pixels
        else:
            height = width = self.default_side()
        return {
            **({"image": list(images)} if images else {}),
            "height": arguments.get("height", height),
            "width": arguments.get("width", width),
        }

    def _scaled_size(self, image: Image.Image) -> tuple[int, int]:
        """Width and height in pixels of a reference once it is scaled down to a megapixel."""
        width, height = image.size
        if width * height <= MEGAPIXEL:
            return width, height
        scale = math.sqrt(MEGAPIXEL / (width * height))
        return int(width * scale), int(height * scale)

    def _reference_grid(self, image: Image.Image) -> Grid:
        """Whole tokens of the scaled image; what is over is cut off at its edges."""
        width, height = self._scaled_size(image)
        pixels = self.token_pixels()
        return Grid(rows=height // pixels, columns=width // pixels)

    def crop_box(
        self, image: Image.Image, arguments: Mapping[str, Any]
    ) -> tuple[float, float, float, float]:
        (width, height), grid = self._scaled_size(image), self._reference_grid(image)
        pixels = self.token_pixels()
        seen_width, seen_height = grid.columns * pixels, grid.rows * pixels
        left, top = (width - seen_width) // 2, (height - seen_height) // 2
        return (
            left / width,
            top / height,
            (left + seen_width) / width,
            (top + seen_height) / height,
        )

    def predict_layout(
        self, image: Image.Image | None, arguments: Mapping[str, Any]
    ) -> TokenLayout:
        return TokenLayout(
            text=self.text_tokens(arguments, "conditional"),
            generation=self.output_grid(arguments),
            references=tuple(self._reference_grid(each) for each in arguments.get("image", ())),
        )

    def shift(self, scheduler: Any, tokens: int, steps: int) -> float:
        from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

        return compute_empirical_mu(tokens, steps)

    def _encode(self, arguments: Mapping[str, Any], branch: str) -> torch.Tensor:
        names = {"max_sequence_length", "text_encoder_out_layers"} & set(arguments)
        options = {name: arguments[name] for name in names}
        return self.pipe.encode_prompt(prompt=self._prompts(branch, arguments), **options)[0]

    def _prompts(self, branch: str, arguments: Mapping[str, Any]) -> list[str]:
        prompt = arguments.get("prompt", "")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        # the pipelines take no other negative prompt
        return prompts if branch == "conditional" else [""] * len(prompts)

    def latents_shape(self, prompts: int, layout: TokenLayout) -> tuple[int, ...]:
        """As in ``Family``; not packed yet."""
        channels = int(self.pipe.transformer.config.in_channels) // 4 * 4
        return prompts, channels, layout.generation.rows, layout.generation.columns

    def cut_off(self, arguments: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
        longest = arguments["max_sequence_length"]
        return [
            ("prompt" if branch == "conditional" else "empty prompt", "tokenizer", number, lost)
            for branch in self.encoded_branches(arguments)
            for number, prompt in enumerate(self._prompts(branch, arguments))
            if (lost := self._length(prompt) - longest) > 0
        ]

    def _length(self, prompt: str) -> int:
        """Tokens of a prompt in its chat template."""
        return int(self._chat_tokens([prompt])["input_ids"].shape[1])

    def padding_tokens(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """As in ``Family``; the chat template's own tokens are not padding. The text encoder is
        given a mask of the padding, and the transformer reads its states all the same."""
        self.check_prompts_known(arguments)
        length = arguments["max_sequence_length"]
        return {
            branch: self._padding(self._prompts(branch, arguments), length)
            for branch in self.branch_names(arguments)
        }

    def _padding(self, prompts: list[str], length: int) -> np.ndarray:
        """Bool (prompt, text token), as ``Flux2Pipeline`` makes its tokens."""
        settings = {"padding": "max_length", "truncation": True, "max_length": length}
        return np.asarray(self._chat_tokens(prompts, **settings)["attention_mask"]) == 0

    def _chat_tokens(self, prompts: list[str], **settings: Any) -> Any:
        from diffusers.pipelines.flux2.pipeline_flux2 import format_input

        return self.pipe.tokenizer.apply_chat_template(
            format_input(prompts=prompts, system_message=self.pipe.system_message),
            add_generation_prompt=False,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            **settings,
        )

    def modulated_input(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        transformer: Any = self.transformer
        states = self.generation_rows(inputs["hidden_states"], layout)
        # the transformer takes both a thousandfold
        timestep, guidance = (
            None if each is None else each.to(states.dtype) * 1000
            for each in (inputs["timestep"], inputs.get("guidance"))
        )
        embedding = transformer.time_guidance_embed(timestep, guidance)
        if len(transformer.transformer_blocks):
            modulation = transformer.double_stream_modulation_img(embedding)
            (shift, scale, _), _ = parameters(modulation, 2)
            norm = transformer.transformer_blocks[0].norm1
        else:
            ((shift, scale, _),) = parameters(transformer.single_stream_modulation(embedding), 1)
            norm = transformer.single_transformer_blocks[0].norm
        return (1 + scale) * norm(transformer.x_embedder(states)) + shift
