"""What JoyImage Edit and Edit Plus have in common: sequence, text, and how tokens are dropped.

Inside attention the sequence is [generation; reference 1; ...; text], in double-stream blocks only,
which return the image's states before the text's. The transformer makes the positions of its tokens
from the shapes of the images, and gives an output for every token, with which the scheduler takes a
step. So reference tokens cannot leave its inputs: one that is dropped is left out of the attention
of every block. For all other tokens this is the same, but nothing is saved.

The text is what Qwen3-VL makes of the prompt and the pictures, without a fixed opening.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.layout import TokenLayout
from recast_probe.pipelines.base import TextInput
from recast_probe.pipelines.rehearsed import Rehearsed
from recast_probe.pipelines.sequence import SequenceFamily


class JoyImage(Rehearsed, SequenceFamily):
    """Shared by JoyImage Edit and Edit Plus; not a family itself."""

    parts = ("transformer", "vae", "scheduler")
    text_parts = ("text_encoder", "tokenizer", "processor")
    texts: Mapping[str, TextInput] = {
        "conditional": TextInput(("prompt",), "prompt_embeds", mask="prompt_embeds_mask"),
        "unconditional": TextInput(
            ("negative_prompt",), "negative_prompt_embeds", mask="negative_prompt_embeds_mask"
        ),
    }
    stacks = (("double", "double_blocks"),)
    unserved: Mapping[str, str] = {
        "timesteps": "would decide on the steps beside steps=; give sigmas",
        "max_sequence_length": "cuts off the beginning of the text, where the pictures are",
    }
    guided_by = "guidance_scale"
    timestep_scale = 1.0
    attention_order = ("generation", "reference", "text")
    image_states_first = True
    drops_in_attention = True

    @property
    def width(self) -> int:
        return int(self.pipe.transformer.config.hidden_size)

    @property
    def text_width(self) -> int:
        return int(self.pipe.transformer.config.text_dim)

    def facts(self) -> dict[str, Any]:
        return {"dropped_tokens": "left out of every attention, without a saving"}

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """What was given.

        Raises:
            InputError: embeddings without their mask.
        """
        for text in self.texts.values():
            if text.embeddings in overrides and text.mask not in overrides:
                raise InputError(f"{text.embeddings} is given without {text.mask}; give both.")
        return super().call_arguments(overrides)

    def predict_layout(
        self, image: Image.Image | None, arguments: Mapping[str, Any]
    ) -> TokenLayout:
        layout, longest = super().predict_layout(image, arguments), self._longest()
        if layout.text >= longest:
            raise InputError(
                f"The text has {longest} tokens or more, pictures included, and the pipeline cuts "
                "off the beginning of a longer one; shorten the prompt."
            )
        return layout

    def _longest(self) -> int:
        return int(self.call_default("max_sequence_length"))

    def count_reference_tokens(self, inputs: Mapping[str, Any], layout: TokenLayout) -> int:
        return self.observed_layout(inputs).reference_tokens

    def kept_positions(
        self, inputs: Mapping[str, Any], rows: torch.Tensor, references: int
    ) -> dict[str, Any]:
        raise UnsupportedPipelineError(
            f"Reference tokens of {self.name} cannot leave the transformer's inputs."
        )

    def reference_features(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        raise UnsupportedPipelineError(
            f"Reference tokens of {self.name} enter the transformer as pictures, and cannot be "
            "compared or merged there; use Prune."
        )

    @abstractmethod
    def generation_patches(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        """The generation's latents in the transformer's inputs, (batch, channel, frame, height,
        width) or one patch after the other in the place of the batch."""

    def modulated_input(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        transformer: Any = self.transformer
        embedded = transformer.img_in(self.generation_patches(inputs, layout))
        batch = len(inputs["timestep"])
        tokens = embedded.flatten(2).transpose(1, 2).reshape(batch, -1, embedded.shape[1])
        time = transformer.condition_embedder(inputs["timestep"], inputs["encoder_hidden_states"])
        first: Any = self.block_modules()[0]
        shift, scale = first.img_mod(time[1].unflatten(1, (6, -1)))[:2]
        return first.img_norm1(tokens) * (1 + scale[:, None]) + shift[:, None]

    def _read(self, arguments: Mapping[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """By branch, int64 and bool (prompt, text token): what Qwen3-VL reads, and where it is no
        padding."""
        self.check_prompts_known(arguments)
        seen: list[Mapping[str, Any]] = []
        hook = self.pipe.text_encoder.register_forward_pre_hook(
            lambda _, __, named: seen.append(named), with_kwargs=True
        )
        try:
            self.rehearsal(arguments, anew=True)
        finally:
            hook.remove()
        starts = self.pipe.prompt_template_encode_start_idx
        pictures = "pixel_values" in seen[0] or "image" not in starts
        start = starts["multiple_images" if pictures else "image"]
        names = ("input_ids", "attention_mask")
        read = [[each[name][:, start:].cpu().numpy() for name in names] for each in seen]
        branches = self.branch_names(arguments)
        return {name: (ids, mask > 0) for name, (ids, mask) in zip(branches, read, strict=True)}

    def padding_tokens(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        return self._filled(
            {name: ~seen for name, (_, seen) in self._read(arguments).items()}, True
        )

    def vision_tokens(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        picture = int(self.pipe.text_encoder.config.image_token_id)
        read = self._read(arguments)
        return self._filled({name: ids == picture for name, (ids, _) in read.items()}, False)

    def _filled(self, found: dict[str, np.ndarray], padding: bool) -> dict[str, np.ndarray]:
        """The same for branches that are filled up to one length."""
        longest = max(each.shape[1] for each in found.values()) if self.batched else 0
        return {
            name: np.pad(
                each, ((0, 0), (0, max(0, longest - each.shape[1]))), constant_values=padding
            )
            for name, each in found.items()
        }
