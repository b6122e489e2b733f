"""Bria FIBO Edit: reference latents after the generation latents, guidance in one batch.

Inside attention the sequence is [text; generation; reference 1; ...] in double-stream and
single-stream blocks alike, and ``img_ids`` says which image a token is of, as in FLUX.1. What
differs:

- Under guidance the negative prompt and the prompt are rows of one transformer call. Prompts of
  different lengths are filled up, and a mask hides the padding from every query.
- Before each block half of every text token's state is replaced by that of a layer of the text
  encoder, so what a block writes there is lost.
- References keep their own sizes, up to one megapixel; the output has the first one's aspect ratio
  unless it is given a height and a width.
- The prompt is JSON with an "edit_instruction".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.layout import TokenLayout
from recast_probe.pipelines.base import TextInput
from recast_probe.pipelines.flux.base import truncated
from recast_probe.pipelines.flux.sequence import FluxSequence
from recast_probe.pipelines.inpainting import mask_picture
from recast_probe.pipelines.rehearsed import Rehearsed


class BriaFiboEdit(Rehearsed, FluxSequence):
    """``BriaFiboEditPipeline`` of diffusers: the references are any number of pictures.

    Examples:
        >>> from recast_probe.testing.tiny_fibo import build_tiny_pipeline
        >>> BriaFiboEdit(build_tiny_pipeline()).block_kinds
        ['double', 'double', 'single', 'single', 'single']
    """

    name = "bria-fibo-edit"
    pipelines = ("BriaFiboEditPipeline",)
    parts = ("transformer", "vae", "scheduler", "text_encoder", "tokenizer")
    text_parts = ()
    texts: Mapping[str, TextInput] = {
        "conditional": TextInput(("prompt",), ""),
        "unconditional": TextInput(("negative_prompt",), ""),
    }
    processors: ClassVar[dict[str, str]] = {
        "double": "BriaFiboAttnProcessor",
        "single": "BriaAttnProcessor",
    }
    reserved: Mapping[str, str] = {"timesteps": "steps"}
    batched = ("unconditional", "conditional")
    timestep_scale = 1.0
    layout_prompt = '{"edit_instruction": ""}'
    takes_attention_mask = False  # it has one of its own
    replaces_text_states = True

    def longest_sequence(self) -> int | None:
        return int(self.call_default("max_sequence_length"))

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """What was given; the mask is read by the rule of ``mask_values``.

        Raises:
            InputError: a mask that cannot be read, or a way to lay out tokens that the pipeline
                has for noise of its own alone.
        """
        if overrides.get("do_patching") and "latents" in overrides:
            raise InputError(
                "latents cannot be given with do_patching, since the pipeline then gives them the "
                "positions of single pixels of the latents; leave one out."
            )
        if "mask" not in overrides:
            return dict(overrides)
        return {**overrides, "mask": mask_picture(overrides["mask"])}

    def reference_arguments(
        self, images: Sequence[Image.Image], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {"image": list(images)} if images else {}

    def kept_positions(
        self, inputs: Mapping[str, Any], rows: torch.Tensor, references: int
    ) -> dict[str, Any]:
        found = super().kept_positions(inputs, rows, references)
        if (mask := _mask(inputs)) is not None:
            text = mask.shape[-1] - inputs["hidden_states"].shape[1]
            places = torch.cat([torch.arange(text), text + rows.cpu()]).to(mask.device)
            own = {"attention_mask": mask.index_select(-1, places)}
            found["joint_attention_kwargs"] = {**inputs["joint_attention_kwargs"], **own}
        return found

    def modulated_input(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        transformer: Any = self.transformer
        tokens = transformer.x_embedder(self.generation_rows(inputs["hidden_states"], layout))
        time = transformer.time_embed(inputs["timestep"].to(tokens.dtype), dtype=tokens.dtype)
        first: Any = self.block_modules()[0]
        return (first.norm1 if hasattr(first, "norm1") else first.norm)(tokens, emb=time)[0]

    def padding_tokens(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        inputs = self.rehearsal(arguments).first_step[0]
        names, mask = self.calls_of_step(self.branch_names(arguments))[0], _mask(inputs)
        rows, text = inputs["encoder_hidden_states"].shape[:2]
        seen = np.ones((rows, text), bool) if mask is None else mask[:, 0, 0, :text].cpu().numpy()
        return dict(zip(names, np.split(~seen, len(names)), strict=True))

    def cut_off(self, arguments: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
        found, length = [], arguments.get("max_sequence_length", self.longest_sequence())
        for branch in self.branch_names(arguments):
            (name,) = self.texts[branch].prompts
            given = arguments.get(name) or ""
            lost = truncated(self.pipe.tokenizer, np.atleast_1d(given).tolist(), length)
            found += [(name, "tokenizer", number, count) for number, count in lost]
        return found


def _mask(inputs: Mapping[str, Any]) -> torch.Tensor | None:
    """Which tokens are seen, bool (row, 1, 1, token); None where all are."""
    return (inputs.get("joint_attention_kwargs") or {}).get("attention_mask")
