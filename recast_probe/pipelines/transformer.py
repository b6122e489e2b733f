"""What families share whose pipeline has a transformer of diffusers with lists of blocks."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from recast_probe.attention.order import SequenceOrder, group_order
from recast_probe.layout import GROUPS, TokenLayout
from recast_probe.pipelines.base import Family, Schedule
from recast_probe.pipelines.flow_schedule import (
    calculated_shift,
    shifted_schedule,
    unshifted_sigmas,
)


class TransformerFamily(Family):
    """Shared by all families of the package; not a family itself.

    Attributes:
        stacks: kind of block, and the transformer's list of them, in the order in which they run.
        guided_by: the argument that asks for guidance where it is above 1, if a text of the
            unconditional branch is known.
        attention_order: token groups as the keys of attention have them one after the other; the
            queries are those of ``query_groups``, in the same order.
        timestep_scale: what the transformer's timestep is multiplied by to be the scheduler's.
    """

    stacks: tuple[tuple[str, str], ...]
    guided_by = "true_cfg_scale"
    attention_order: tuple[str, ...] = GROUPS
    timestep_scale = 1000.0

    def lacking(self) -> list[str]:
        return [
            f"transformer.{stack}"
            for _, stack in self.stacks
            if not isinstance(getattr(self.transformer, stack, None), torch.nn.ModuleList)
        ]

    def block_places(self) -> Iterator[tuple[str, str, int]]:
        """Kind, stack and index in the stack of every block, in the order in which they run."""
        for kind, stack in self.stacks:
            for index in range(len(getattr(self.transformer, stack))):
                yield kind, stack, index

    def block_lists(self) -> list[tuple[torch.nn.Module, str]]:
        return [(self.transformer, stack) for _, stack in self.stacks]

    @property
    def transformer(self) -> torch.nn.Module:
        return self.pipe.transformer

    @property
    def heads(self) -> int:
        return int(self.pipe.transformer.config.num_attention_heads)

    @property
    def width(self) -> int:
        return self.heads * int(self.pipe.transformer.config.attention_head_dim)

    def token_pixels(self) -> int:
        """Side in pixels of the square that one token stands for."""
        return int(self.pipe.vae_scale_factor) * 2

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """By default what was given: all else is left to the pipeline's own defaults."""
        return dict(overrides)

    def prepare_reference(self, image: Image.Image, overrides: Mapping[str, Any]) -> Image.Image:
        """By default the image as it is: the pipeline scales it itself."""
        return image

    def call_default(self, argument: str) -> Any:
        """The default that the pipeline's own call has for an argument."""
        return inspect.signature(type(self.pipe).__call__).parameters[argument].default

    def text_tokens(self, arguments: Mapping[str, Any], branch: str) -> int:
        """Text tokens of a branch: those of its embeddings, or all that a prompt is padded to."""
        if not self.text_in_sequence:
            return 0
        given = self.given_embeddings(arguments, branch)
        return int(arguments["max_sequence_length"] if given is None else given.shape[1])

    def branch_layouts(
        self, layout: TokenLayout, arguments: Mapping[str, Any]
    ) -> dict[str, TokenLayout]:
        return {
            branch: replace(layout, text=self.text_tokens(arguments, branch))
            for branch in self.branch_names(arguments)
        }

    def branch_names(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        text = self.texts.get("unconditional")
        if text is None:
            return ("conditional",)
        # without an argument for it, the negative prompt is the empty one
        given = (arguments.get(name) is not None for name in (*text.prompts[:1], text.embeddings))
        if text.prompts and not any(given):
            return ("conditional",)
        scale = arguments.get(self.guided_by)
        scale = self.call_default(self.guided_by) if scale is None else scale
        return ("conditional", "unconditional") if scale > 1 else ("conditional",)

    def branch_embeddings(self, arguments: Mapping[str, Any]) -> dict[str, torch.Tensor | None]:
        names = self.branch_names(arguments)
        if len(names) == 1:
            return {names[0]: None}
        found = {name: self.given_embeddings(arguments, name) for name in names}
        with torch.no_grad():
            return {
                name: self._encode(arguments, name) if given is None else given
                for name, given in found.items()
            }

    def _encode(self, arguments: Mapping[str, Any], branch: str) -> torch.Tensor:
        """The text embeddings that the pipeline makes for a branch."""
        raise NotImplementedError

    def shift(self, scheduler: Any, tokens: int, steps: int) -> float:
        """By how much the scheduler shifts its sigmas for so many generation tokens and steps."""
        return calculated_shift(scheduler, tokens)

    def predict_schedule(self, layout: TokenLayout, arguments: Mapping[str, Any]) -> Schedule:
        steps, scheduler = arguments["num_inference_steps"], self.pipe.scheduler
        flow = self.leaves_flow_sigmas and scheduler.config.get("use_flow_sigmas")
        sigmas = None if flow else unshifted_sigmas(arguments)
        shift = self.shift(scheduler, layout.generation.size, steps)
        return shifted_schedule(self.pipe, steps, sigmas, shift)

    def sequence_order(
        self, inputs: Mapping[str, Any], layout: TokenLayout
    ) -> SequenceOrder | None:
        def present(groups: Sequence[str]) -> list[str]:
            return [group for group in groups if layout.span(group).start < layout.span(group).stop]

        if present(self.attention_order) == present(GROUPS):
            return None
        queries = [group for group in self.attention_order if group in self.query_groups]
        return group_order(layout, self.attention_order, queries)

    def observed_timestep(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        return inputs["timestep"].detach().double().cpu() * self.timestep_scale

    def observed_embedding(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        return inputs["encoder_hidden_states"]
