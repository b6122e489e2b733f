"""A family that is a list of facts, for a pipeline of your own; see docs/own-pipeline.md."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from recast_probe.errors import UnsupportedPipelineError
from recast_probe.layout import TokenLayout
from recast_probe.pipelines.base import TextInput
from recast_probe.pipelines.rehearsed import Rehearsed
from recast_probe.pipelines.sequence import SequenceFamily


class DeclaredFamily(Rehearsed, SequenceFamily):
    """Base of families of your own: what a rehearsal tells needs no word, the rest has a default.

    A subclass gives ``name``, ``pipelines`` and ``stacks``, and what differs from these defaults:
    position ids in ``img_ids`` (``positions``), an attention module ``attn`` with ``heads`` in each
    block, whose processor calls diffusers' dispatch once (``attention``, ``site``), timesteps a
    thousandth of the scheduler's (``timestep_scale``), the reference in the argument ``image``, and
    [text; generation; reference] in attention (``sequence_order``). What is declared wrongly is
    refused by the first run.

    Examples:
        >>> class Mine(rp.pipelines.DeclaredFamily):
        ...     name, pipelines = "mine", ("MyPipeline",)
        ...     stacks = (("double", "blocks"),)
        >>> Mine.positions
        'img_ids'
    """

    parts = ("transformer", "scheduler")
    text_parts: tuple[str, ...] = ()
    texts: Mapping[str, TextInput] = {
        "conditional": TextInput(("prompt",), "prompt_embeds"),
        "unconditional": TextInput(("negative_prompt",), "negative_prompt_embeds"),
    }
    processors: ClassVar[Mapping[str, str]] = {}
    takes_attention_mask = False

    @property
    def heads(self) -> int:
        attention: Any = self.transformer.get_submodule(self.attention_calls()[0].module)
        return int(attention.heads)

    @property
    def width(self) -> int:
        raise UnsupportedPipelineError(
            f"The width of {self.name} is not declared; give {type(self).__name__} a width, the "
            "numbers in one token's hidden state."
        )

    def rehearsed_output(self, inputs: Mapping[str, Any]) -> Any:
        """As diffusers' transformers give it where the forward takes ``return_dict``, else a tensor
        in the shape of ``hidden_states``."""
        if "return_dict" in inspect.signature(type(self.transformer).forward).parameters:
            return super().rehearsed_output(inputs)
        return torch.zeros_like(inputs["hidden_states"])

    def latents_shape(self, prompts: int, layout: TokenLayout) -> tuple[int, ...]:
        raise UnsupportedPipelineError(
            f"The shape of latents of {self.name} is not declared; leave latents out, or give "
            f"{type(self).__name__} a latents_shape."
        )
