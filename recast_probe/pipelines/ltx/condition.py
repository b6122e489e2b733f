"""LTX-Video with pictures at given times: a token grid with time.

Of diffusers' video pipelines this is the one whose references are plain tokens: it is widely used,
its transformer leaves self-attention over them to one dense call of diffusers' dispatch, and each
reference is a picture. (LTX-2 has a second stream of sound; Wan-Animate 2 attends to a cache under
a block mask; what FramePack adds is the video's own past.) A picture that is to be seen at a
``frame_index`` above 0 is one grid of tokens, at that time; at ``frame_index=0`` it would be mixed
into the video's first tokens instead.

The image tokens are [reference 1; reference 2; ...; generation], and the generation has one grid
for each frame of latents: for the video's first picture, and for every 8 after it. Text is attended
to elsewhere, in the blocks' cross-attention, so there are no text tokens in the sequence.
``video_coords`` holds (seconds, top, left) of each token. A reference is at timestep 0 in every
step, and what the transformer gives for it is not used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from recast_probe._utils.checks import check_finite, check_int
from recast_probe.errors import InputError, VerificationError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.base import TextInput
from recast_probe.pipelines.flux.base import truncated
from recast_probe.pipelines.ltx.whole_output import whole_output
from recast_probe.pipelines.rehearsed import Rehearsed
from recast_probe.pipelines.sequence import SequenceFamily


class LTXCondition(Rehearsed, SequenceFamily):
    """``LTXConditionPipeline`` of diffusers: the references are pictures that a video shows at
    given times.

    Examples:
        >>> from recast_probe.testing.tiny_ltx import build_tiny_pipeline
        >>> LTXCondition(build_tiny_pipeline()).attention_calls()[0].module
        'transformer_blocks.0.attn1'
    """

    name = "ltx-condition"
    pipelines = ("LTXConditionPipeline",)
    parts = ("transformer", "vae", "scheduler", "video_processor")
    text_parts = ("tokenizer", "text_encoder")
    texts: Mapping[str, TextInput] = {
        "conditional": TextInput(("prompt",), "prompt_embeds", mask="prompt_attention_mask"),
        "unconditional": TextInput(
            ("negative_prompt",), "negative_prompt_embeds", mask="negative_prompt_attention_mask"
        ),
    }
    stacks = (("single", "transformer_blocks"),)
    processors: ClassVar[dict[str, str]] = {"single": "LTXVideoAttnProcessor"}
    attention = "attn1"
    reference_first = True
    attention_order = ("text", "reference", "generation")
    text_in_sequence = False
    takes_attention_mask = False
    query_groups = ("generation", "reference")
    batched = ("unconditional", "conditional")
    timestep_scale = 1.0
    layered = "frame"
    output_name = "frames"
    reserved: Mapping[str, str] = {
        "conditions": "image, and frame_index,",
        "video": "image",
        "num_videos_per_prompt": "several calls with different seeds",
    }
    unserved: Mapping[str, str] = {
        "strength": "makes the references a part of what is generated, where it is below 1",
        "denoise_strength": "starts from latents that are given",
        "latents": "has no effect in this pipeline",
        "timesteps": "sets the number of steps as well",
        "guidance_rescale": "measures the spread over reference tokens as well, which may be "
        "dropped",
    }

    @property
    def text_width(self) -> int:
        return int(self.pipe.transformer.config.caption_channels)

    def lacking(self) -> list[str]:
        config = self.pipe.transformer.config
        patches = {config.patch_size, config.patch_size_t}
        return super().lacking() + ([] if patches == {1} else ["transformer with patch_size 1"])

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        rate = check_finite("frame_rate", overrides.get("frame_rate", 1))
        if rate <= 0:
            raise InputError(f"frame_rate must be above 0 pictures a second, not {rate:g}.")
        return dict(overrides)

    def cut_off(self, arguments: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
        name = "max_sequence_length"
        length = arguments.get(name, self.call_default(name))
        found = []
        for branch in self.encoded_branches(arguments):
            (argument,) = self.texts[branch].prompts
            given = arguments.get(argument, "")
            prompts = [given] if isinstance(given, str) else given
            for number, lost in truncated(self.pipe.tokenizer, prompts, length):
                found.append((argument, "tokenizer", number, lost))
        return found

    def reference_arguments(
        self, images: Sequence[Image.Image], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The images with their times.

        Raises:
            InputError: no ``frame_index`` above 0 for each of them.
        """
        if not images:
            return {}
        given = arguments.get("frame_index", 0)
        if isinstance(given, list | tuple) and len(given) != len(images):
            raise InputError(
                f"frame_index has {len(given)} entries for {len(images)} references; give one for "
                "each, or one for all."
            )
        times = list(given) if isinstance(given, list | tuple) else [given] * len(images)
        if 0 in times:
            raise InputError(
                "A picture at frame_index=0 becomes the first tokens of the video itself, and no "
                "reference tokens; give a frame_index above 0, such as that of the last picture, "
                "num_frames - 1."
            )
        times = [check_int("frame_index", each, 1) for each in times]
        # the pipeline would take one of several images if the list of videos were shorter
        return {"image": list(images), "video": [None] * len(images), "frame_index": times}

    def predict_layout(
        self, image: Image.Image | None, arguments: Mapping[str, Any]
    ) -> TokenLayout:
        prompts = self.count_prompts(arguments)
        if image is not None and prompts > 1:
            raise InputError(
                f"{type(self.pipe).__name__} runs one prompt at a time where it has a reference, "
                f"not {prompts}; call the probe for each of them."
            )
        return super().predict_layout(image, arguments)

    def observed_timestep(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        # the last token is one of the generation, whatever stands before
        return super().observed_timestep({"timestep": inputs["timestep"][:, -1]})

    def image_grids(self, inputs: Mapping[str, Any]) -> list[Grid]:
        seconds, *places = inputs["video_coords"][0].detach().double().cpu().numpy()
        top, left = (np.rint(each / self.token_pixels()).astype(np.int64) for each in places)
        rows, columns = int(top.max()) + 1, int(left.max()) + 1
        pictures, rest = divmod(len(top), rows * columns)
        raster = [np.tile(each, pictures) for each in np.divmod(np.arange(rows * columns), columns)]
        if rest or (top != raster[0]).any() or (left != raster[1]).any():
            raise VerificationError(
                f"The transformer was given {len(top)} tokens that are not whole pictures of "
                f"{rows} x {columns}; this pipeline does not lay out tokens as {self.name} does."
            )
        # a picture's tokens are of one time; the video's own begin at 0, where no reference is
        times = seconds.reshape(pictures, -1)
        first = int(np.flatnonzero(times[:, 0] == 0)[-1]) if (times[:, 0] == 0).any() else 0
        if np.ptp(times, axis=1).any() or times[first, 0] or (np.diff(times[first:, 0]) <= 0).any():
            raise VerificationError(
                f"The transformer was given pictures at {times[:, 0].tolist()} seconds, and the "
                f"video should begin at 0; this pipeline does not lay out tokens as {self.name} "
                "does."
            )
        return [Grid(rows, columns, layers=pictures - first), *[Grid(rows, columns)] * first]

    def token_pixels(self) -> int:
        return int(self.pipe.vae_spatial_compression_ratio)

    def whole_picture(self, parts: Sequence[Image.Image]) -> Image.Image:
        """The middle frame."""
        return parts[len(parts) // 2]

    def attention_call_order(self, inputs: Mapping[str, Any]) -> list[int]:
        # every block attends to the text after it has attended to the video
        return [2 * block for block in range(len(self.attention_calls()))]

    def kept_positions(
        self, inputs: Mapping[str, Any], rows: torch.Tensor, references: int
    ) -> dict[str, Any]:
        return {
            "video_coords": inputs["video_coords"].index_select(2, rows),
            "timestep": inputs["timestep"].index_select(1, rows),
        }

    def keep_rotary_positions(self) -> AbstractContextManager[None]:
        return whole_output(self.transformer)

    def states_in_order(
        self, states: Sequence[torch.Tensor], layout: TokenLayout
    ) -> list[torch.Tensor]:
        (tokens,) = states
        return [self.generation_rows(tokens, layout), tokens[:, self._reference(layout)]]

    def states_of_block(self, states: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        generation, reference = states
        return [torch.cat([reference, generation], dim=1)]

    def modulated_input(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        transformer = self.pipe.transformer
        block = transformer.transformer_blocks[0]
        tokens = transformer.proj_in(self.generation_rows(inputs["hidden_states"], layout))
        embedding, _ = transformer.time_embed(
            inputs["timestep"][:, -1].flatten(), batch_size=len(tokens), hidden_dtype=tokens.dtype
        )
        table = block.scale_shift_table[None]
        shift, scale, *_ = (table + embedding.reshape(len(tokens), *table.shape[1:])).unbind(1)
        return block.norm1(tokens) * (1 + scale[:, None]) + shift[:, None]
