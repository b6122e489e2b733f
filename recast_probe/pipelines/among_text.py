"""Models whose reference tokens stand among the states of the text, behind its own.

The transformer takes them for text. Inside attention the order is [text; reference; generation].
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from recast_probe.layout import TokenLayout
from recast_probe.pipelines.transformer import TransformerFamily
from recast_probe.selection.merging import Groups

TEXT, PLACES = "encoder_hidden_states", "txt_ids"


class AmongText(TransformerFamily):
    """Mixed into a family, before its other bases; not a family itself."""

    attention_order = ("text", "reference", "generation")
    image_stream = ("generation",)
    takes_attention_mask = False  # its mask would be in the model's order

    @abstractmethod
    def tokens_among_text(self) -> int:
        """Reference tokens among the text of the present transformer calls, as the pipeline tells:
        nothing in the inputs tells them from the text."""

    def observed_text(self, inputs: Mapping[str, Any]) -> int:
        return super().observed_text(inputs) - self.tokens_among_text()

    def observed_embedding(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        return inputs[TEXT][:, : self.observed_text(inputs)]

    def count_reference_tokens(self, inputs: Mapping[str, Any], layout: TokenLayout) -> int:
        return int(inputs[TEXT].shape[1]) - layout.text

    def keep_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, kept: Sequence[int] | np.ndarray
    ) -> dict[str, Any]:
        places = layout.text + torch.as_tensor(np.asarray(kept, np.int64))
        rows = torch.cat([torch.arange(layout.text), places]).to(inputs[TEXT].device)
        positions = inputs[PLACES].index_select(-2, rows.to(inputs[PLACES].device))
        return {**inputs, TEXT: inputs[TEXT].index_select(1, rows), PLACES: positions}

    def reference_features(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        return inputs[TEXT][:, layout.text :]

    def merge_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, groups: Groups, *, proportional: bool
    ) -> dict[str, Any]:
        merged = groups.mean(self.reference_features(inputs, layout))
        edited = self.keep_reference_tokens(inputs, layout, groups.kept.numpy())
        return {**edited, TEXT: torch.cat([inputs[TEXT][:, : layout.text], merged], dim=1)}

    def states_in_order(
        self, states: Sequence[torch.Tensor], layout: TokenLayout
    ) -> list[torch.Tensor]:
        among_text, generation = states
        return [among_text[:, : layout.text], generation, among_text[:, layout.text :]]

    def states_of_block(self, states: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        text, generation, reference = states
        return [torch.cat([text, reference], dim=1), generation]
