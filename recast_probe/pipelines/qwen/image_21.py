"""Qwen-Image 2.1: one model that makes images and edits them, with any number of references.

All blocks are single-stream, and the transformer's sequence is [text; reference 1; text; reference
2; ...; text; generation]: the references stand where the language model had their pictures. Each
token sees what stands before it, and an image the whole of itself. Eight things follow:

- Text and reference tokens never read the generation, and they are modulated for timestep 0 in all
  steps. So their keys and values are the same in every step: the pipeline computes them in step 0,
  and later steps compute generation tokens alone (``use_kv_cache``, on by default).
- Attention is read and changed where generation tokens attend, in every step, with the cache or
  without it. Attention of text and reference tokens is not read: it exists in step 0 only.
- A **dropped** reference token is one that no generation token attends to. It leaves the keys of
  that attention, and where there is a cache, a copy of it. In calls without one, which step 0
  always is, it is computed all the same, since text after the reference reads it.
- Text tokens **after a picture have read it**: first in the language model, which saw the pictures
  together with the prompt, then in every block. Dropping reference tokens, or cutting edges from
  them to the generation, leaves this way open. A run without any picture is ``image=None``.
- The language model's own tokens of the pictures are **replaced** by the reference's latents, so no
  text token stands for a part of a picture.
- Every reference is scaled to ``output_resolution`` squared, and its sides to multiples of 32.
- ``sample_sigmas`` in the pipeline's config say how many steps a run has.
- A batch has prompts of one length, since its images are placed after the longest.

Pictures have an alpha channel: that of a reference goes into its latents, while the language model
sees the picture on white; and what is made has one too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from recast_probe.attention.order import SequenceOrder
from recast_probe.errors import InputError
from recast_probe.layout import TokenLayout
from recast_probe.pipelines.base import AttentionCall
from recast_probe.pipelines.position_ids import grids_of_shapes
from recast_probe.pipelines.qwen.kept_prefix import KeptPrefix, KeptShapes
from recast_probe.pipelines.qwen.transformer import QwenTransformer
from recast_probe.pipelines.rehearsal import Rehearsal
from recast_probe.pipelines.rehearsed import Rehearsed

# the other processor hands all queries and a mask of blocks to flex attention at once
REMEDY = "call pipe.transformer.set_attn_processor(QwenImage21AttnProcessor())"
# generation tokens attend in one place where there is a cache, and in another without
CACHED, WHOLE = (("self_processor_0", f"dispatch_attention_fn_{place}") for place in (0, 2))
SLOT = 4  # image tokens for one token of a picture in the language model


class QwenImage21(Rehearsed):
    """``QwenImage21Pipeline`` of diffusers: the references are any number of pictures, which the
    text has seen too.

    Examples:
        >>> from recast_probe.testing.tiny_qwen21 import build_tiny_pipeline
        >>> QwenImage21(build_tiny_pipeline()).block_kinds
        ['single', 'single', 'single']
    """

    name = "qwen-image-2.1"
    pipelines = ("QwenImage21Pipeline",)
    parts, text_parts = QwenTransformer.parts, QwenTransformer.text_parts
    texts = QwenTransformer.texts
    stacks = (("single", "transformer_blocks"),)
    processors: ClassVar[dict[str, str]] = {"single": "QwenImage21AttnProcessor"}
    packages = ("torchvision",)
    reads_alpha = caches_reference = True
    query_groups = ("generation",)
    no_block_states = "by default computes text and reference tokens in the first step alone"

    @property
    def fixed_steps(self) -> int | None:
        return len(self.pipe.config.get("sample_sigmas") or ()) or None

    @property
    def text_width(self) -> int:
        return int(self.pipe.transformer.config.context_in_dim)

    def token_pixels(self) -> int:
        return int(self.pipe.vae_scale_factor)

    def lacking(self) -> list[str]:
        found = super().lacking() or self.other_processors(REMEDY)
        if not found and not self.pipe.transformer.config.causal_condition:
            return ["transformer.config.causal_condition (True)"]
        return found

    def block_modules(self) -> list[torch.nn.Module]:
        return list(self.pipe.transformer.transformer_blocks)

    def attention_calls(self) -> list[AttentionCall]:
        return [
            AttentionCall(kind, f"{stack}.{index}.attn", WHOLE, (CACHED, WHOLE))
            for kind, stack, index in self.block_places()
        ]

    def operations(self, call: AttentionCall, inputs: Mapping[str, Any]) -> tuple[str, ...]:
        return CACHED if _cached(inputs) else WHOLE

    def attention_call_order(self, inputs: Mapping[str, Any]) -> list[int]:
        blocks = range(len(self.attention_calls()))
        if _cached(inputs):
            return list(blocks)
        # every reference and every stretch of text attends by itself, and then the generation
        text, _, _ = _places(inputs)
        before = len(inputs["img_shapes"][0]) + int((text.diff() > 1).sum())
        return [(before + 1) * block + before for block in blocks]

    def sequence_order(self, inputs: Mapping[str, Any], layout: TokenLayout) -> SequenceOrder:
        text, references, generation = _places(inputs)
        kept = references if _kept(inputs) is None else references[_kept(inputs)]
        keys, left_out = torch.cat([text, generation, kept]), len(references) - len(kept)
        if _cached(inputs):  # dropped tokens are not there
            keys, left_out = keys.argsort().argsort(), 0
        return SequenceOrder(keys, torch.arange(len(generation)), ("generation",), left_out)

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        names = (self.guided_by, "output_resolution", "use_kv_cache")
        found = {**{name: self.call_default(name) for name in names}, **overrides}
        side = 2 * self.token_pixels()  # to multiples of which the pipeline cuts
        for name in sorted({"height", "width", "output_resolution"} & set(found)):
            if found[name] < side:
                raise InputError(f"{name}={found[name]} is below {side} pixels; raise it.")
        return found

    def reference_arguments(
        self, images: Sequence[Image.Image], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        for text in self.texts.values():
            if images and text.embeddings in arguments:
                raise InputError(
                    f"{text.embeddings} cannot be given together with a reference: "
                    f"{type(self.pipe).__name__} has no argument for where its pictures stand in "
                    "the text. Give the prompt, or leave the reference out."
                )
        return {"image": list(images)} if images else {}

    def rehearsal(self, arguments: Mapping[str, Any], *, anew: bool = False) -> Rehearsal:
        """What the transformer is given in a call with these arguments.

        Raises:
            InputError: prompts of different lengths, or pictures that the text has no room for.
        """
        found = super().rehearsal(arguments, anew=anew)
        for inputs in found.first_step:
            slots, tokens = int(inputs["img_mask"][0].sum()), inputs["hidden_states"].shape[1]
            _check_one_length(inputs)
            if SLOT * slots != tokens:
                raise InputError(
                    f"The text has room for {SLOT * slots} image tokens, and there are {tokens}: "
                    "the language model scales pictures of this output_resolution itself, or the "
                    "prompt holds <|image_pad|>. Choose another one, or remove it."
                )
        return found

    def padding_tokens(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        self.check_prompts_known(arguments)
        rows, first = self.count_prompts(arguments), self.rehearsal(arguments).first_step[0]
        layouts = self.branch_layouts(self.observed_layout(first), arguments)
        # prompts of one length are not filled up
        return {branch: np.zeros((rows, own.text), bool) for branch, own in layouts.items()}

    def observed_text(self, inputs: Mapping[str, Any]) -> int:
        references = inputs["img_shapes"][0][:-1]
        return int(inputs["encoder_hidden_states"].shape[1]) - sum(map(prod, references)) // SLOT

    def observed_layout(self, inputs: Mapping[str, Any]) -> TokenLayout:
        *references, generation = grids_of_shapes(inputs["img_shapes"], inputs, self.name)
        return TokenLayout(self.observed_text(inputs), generation, tuple(references))

    def generation_rows(self, states: torch.Tensor, layout: TokenLayout) -> torch.Tensor:
        return states[:, -layout.generation.size :]

    def count_reference_tokens(self, inputs: Mapping[str, Any], layout: TokenLayout) -> int:
        kept = _kept(inputs)
        return layout.reference_tokens if kept is None else len(kept)

    def keep_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, kept: Sequence[int] | np.ndarray
    ) -> dict[str, Any]:
        _check_one_length(inputs)
        stay = torch.as_tensor(np.asarray(kept, np.int64))
        edited = {**inputs, "img_shapes": KeptShapes(inputs["img_shapes"], stay)}
        if _cached(inputs):
            text, references, _ = _places(inputs)
            rows = torch.cat([text, references[stay]]).sort().values
            edited["kv_cache"] = KeptPrefix(inputs["kv_cache"], rows)
        return edited

    def modulated_input(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        transformer, first = self.pipe.transformer, self.pipe.transformer.transformer_blocks[0]
        tokens = transformer.img_in(self.generation_rows(inputs["hidden_states"], layout))
        embedding = transformer.time_text_embed(inputs["timestep"].to(tokens.dtype), tokens)
        modulation = transformer.modulation(embedding).chunk(2, dim=-1)[0]
        return first._modulate(first.img_norm1(tokens), modulation, None)[0]


def _cached(inputs: Mapping[str, Any]) -> bool:
    """Whether a call attends to text and reference tokens of an earlier one."""
    return inputs.get("kv_cache_mode") == "cached"


def _check_one_length(inputs: Mapping[str, Any]) -> None:
    mask = inputs.get("encoder_hidden_states_mask")
    if mask is not None:
        lengths = " and ".join(map(str, mask.sum(1).tolist()))
        raise InputError(
            f"The texts of a batch have {lengths} tokens with their pictures, and their images "
            "are placed after the longest, so that they are not those of each text alone; run one "
            "after the other."
        )


def _kept(inputs: Mapping[str, Any]) -> torch.Tensor | None:
    """Index of the reference tokens that stay; None for all."""
    return getattr(inputs["img_shapes"], "kept", None)


def _places(inputs: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where text, references and generation stand in the transformer's sequence, int64 each."""
    slots = inputs["img_mask"][0].cpu()
    images = slots.repeat_interleave(torch.where(slots, SLOT, 1))
    found = images.nonzero()[:, 0]
    target = prod(inputs["img_shapes"][0][-1])
    return (~images).nonzero()[:, 0], found[:-target], found[-target:]
