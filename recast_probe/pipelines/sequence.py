"""Transformers whose reference tokens stand in the sequence, after those of the generation.

Inside attention the sequence is [text; generation; reference 1; reference 2; ...] in every block.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.base import AttentionCall
from recast_probe.pipelines.transformer import TransformerFamily
from recast_probe.selection.merging import Groups


class SequenceFamily(TransformerFamily):
    """Shared by FLUX.1 Kontext, FLUX.2 and Qwen-Image-Edit; not a family itself.

    Attributes:
        remedy: what a user does about another processor.
    """

    operations = ("self_processor_0", "dispatch_attention_fn_0")
    remedy: ClassVar[str] = ""

    def lacking(self) -> list[str]:
        return super().lacking() or self.other_processors(self.remedy)

    def attention_calls(self) -> list[AttentionCall]:
        return [
            AttentionCall(kind, f"{stack}.{index}.attn", self.operations)
            for kind, stack, index in self.block_places()
        ]

    def block_modules(self) -> list[torch.nn.Module]:
        return [getattr(self.transformer, stack)[index] for _, stack, index in self.block_places()]

    @abstractmethod
    def image_grids(self, inputs: Mapping[str, Any]) -> list[Grid]:
        """Grids of the images in the transformer's inputs, generation first.

        Raises:
            VerificationError: the image tokens are not raster grids.
        """

    def observed_layout(self, inputs: Mapping[str, Any]) -> TokenLayout:
        generation, *references = self.image_grids(inputs)
        return TokenLayout(
            text=int(inputs["encoder_hidden_states"].shape[1]),
            generation=generation,
            references=tuple(references),
        )

    @abstractmethod
    def kept_positions(
        self, inputs: Mapping[str, Any], rows: torch.Tensor, references: int
    ) -> dict[str, Any]:
        """The transformer's inputs for positions with these image tokens only.

        Args:
            rows: int64, which image tokens are kept, generation tokens first.
            references: how many of them are reference tokens.
        """

    def keep_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, kept: Sequence[int] | np.ndarray
    ) -> dict[str, Any]:
        states, generation = inputs["hidden_states"], layout.generation.size
        rows = torch.cat(
            [torch.arange(generation), generation + torch.as_tensor(np.asarray(kept, np.int64))]
        ).to(states.device)
        positions = self.kept_positions(inputs, rows, len(kept))
        return {**inputs, "hidden_states": states.index_select(1, rows), **positions}

    def reference_features(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        return inputs["hidden_states"][:, layout.generation.size :]

    def merge_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, groups: Groups, *, proportional: bool
    ) -> dict[str, Any]:
        generation = inputs["hidden_states"][:, : layout.generation.size]
        merged = groups.mean(self.reference_features(inputs, layout))
        edited = self.keep_reference_tokens(inputs, layout, groups.kept.numpy())
        edited["hidden_states"] = torch.cat([generation, merged], dim=1)
        if proportional and self.takes_attention_mask and len(groups.kept) < len(groups.group):
            options = dict(inputs.get("joint_attention_kwargs") or {})
            if options.get("attention_mask") is not None:
                raise InputError(
                    "Merged reference tokens are weighted through the attention mask, but "
                    "joint_attention_kwargs holds an attention_mask already; leave it out, or "
                    "choose proportional=False."
                )
            present = layout.text + layout.generation.size
            weight = torch.zeros(present + len(groups.kept))
            weight[present:] = groups.sizes.float().log()
            options["attention_mask"] = weight.to(merged)[None, None, None]
            edited["joint_attention_kwargs"] = options
        return edited
