"""Transformers whose reference tokens stand in the sequence with those of the generation.

Inside attention the sequence is [text; generation; reference 1; reference 2; ...] in every block,
or what a family says in ``sequence_order``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.base import AttentionCall
from recast_probe.pipelines.position_ids import raster_grids
from recast_probe.pipelines.transformer import TransformerFamily
from recast_probe.selection.merging import Groups


class SequenceFamily(TransformerFamily):
    """Shared by FLUX, Qwen-Image-Edit, LTX-Video and more; not a family itself.

    Attributes:
        site: the operations that lead to a block's attention, see ``AttentionCall``.
        sites: all of them, where they depend on the transformer call.
        positions: the transformer's input that holds position ids of the image tokens, (token,
            axis) or (batch, token, axis), where the axes begin with image, row and column.
        remedy: what a user does about another processor.
        attention: name of the module in a block that attends to the reference.
        reference_first: among the image tokens that the transformer is given, those of the
            reference come before those of the generation.
    """

    site: tuple[str, ...] = ("self_processor_0", "dispatch_attention_fn_0")
    sites: tuple[tuple[str, ...], ...] = ()
    positions: str = "img_ids"
    remedy: ClassVar[str] = ""
    attention: ClassVar[str] = "attn"
    reference_first: ClassVar[bool] = False

    def lacking(self) -> list[str]:
        return super().lacking() or self.other_processors(self.remedy)

    def attention_calls(self) -> list[AttentionCall]:
        return [
            AttentionCall(kind, f"{stack}.{index}.{self.attention}", self.site, self.sites)
            for kind, stack, index in self.block_places()
        ]

    def block_modules(self) -> list[torch.nn.Module]:
        return [getattr(self.transformer, stack)[index] for _, stack, index in self.block_places()]

    def image_grids(self, inputs: Mapping[str, Any]) -> list[Grid]:
        """Grids of the images in the transformer's inputs, generation first; by default those of
        the position ids.

        Raises:
            VerificationError: the image tokens are not raster grids.
        """
        return raster_grids(inputs[self.positions], self.name)

    def observed_layout(self, inputs: Mapping[str, Any]) -> TokenLayout:
        generation, *references = self.image_grids(inputs)
        return TokenLayout(
            text=self.observed_text(inputs),
            generation=generation,
            references=tuple(references),
        )

    def kept_positions(
        self, inputs: Mapping[str, Any], rows: torch.Tensor, references: int
    ) -> dict[str, Any]:
        """The transformer's inputs for positions with these image tokens only.

        Args:
            rows: int64, which image tokens are kept, in their order.
            references: how many of them are reference tokens.
        """
        ids = inputs[self.positions]
        return {self.positions: ids.index_select(ids.ndim - 2, rows.to(ids.device))}

    def keep_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, kept: Sequence[int] | np.ndarray
    ) -> dict[str, Any]:
        states = inputs["hidden_states"]
        every = torch.arange(states.shape[1])
        reference = every[self._reference(layout)][torch.as_tensor(np.asarray(kept, np.int64))]
        rows = self._joined(every[self._generation(layout)], reference, 0).to(states.device)
        positions = self.kept_positions(inputs, rows, len(kept))
        return {**inputs, "hidden_states": states.index_select(1, rows), **positions}

    def reference_features(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        return inputs["hidden_states"][:, self._reference(layout)]

    def generation_rows(self, states: torch.Tensor, layout: TokenLayout) -> torch.Tensor:
        return states[:, self._generation(layout)]

    def _generation(self, layout: TokenLayout) -> slice:
        size = layout.generation.size
        return slice(-size, None) if self.reference_first else slice(0, size)

    def _reference(self, layout: TokenLayout) -> slice:
        size = layout.generation.size
        return slice(0, -size) if self.reference_first else slice(size, None)

    def _joined(self, generation: torch.Tensor, reference: torch.Tensor, axis: int) -> torch.Tensor:
        order = (reference, generation) if self.reference_first else (generation, reference)
        return torch.cat(order, dim=axis)

    def merge_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, groups: Groups, *, proportional: bool
    ) -> dict[str, Any]:
        generation = self.generation_rows(inputs["hidden_states"], layout)
        merged = groups.mean(self.reference_features(inputs, layout))
        edited = self.keep_reference_tokens(inputs, layout, groups.kept.numpy())
        edited["hidden_states"] = self._joined(generation, merged, 1)
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
