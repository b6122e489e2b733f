"""Models that compute their references in the first step, and keep the keys and values of these.

In later steps reference tokens are no queries, and not among the transformer's tokens: attention is
given their keys and values. Dropping one is to leave it out of what is given.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from recast_probe.errors import UnsupportedPipelineError
from recast_probe.layout import TokenLayout
from recast_probe.pipelines.sequence import SequenceFamily


class ReferenceCache(SequenceFamily):
    """Base of FLUX.2 klein KV; not a family itself."""

    caches_reference = forgets_dropped = True
    query_groups = ("generation", "text")
    no_block_states = "computes its reference tokens in the first step only"

    @abstractmethod
    def cached_tokens(self, inputs: Mapping[str, Any]) -> int | None:
        """Reference tokens in the cache that a transformer call is given; None where it is given
        none, and computes what references it has."""

    @abstractmethod
    def keep_cached(self, inputs: Mapping[str, Any], kept: torch.Tensor) -> dict[str, Any]:
        """The inputs of a call with a cache of some of its reference tokens, int64 (token,)."""

    def layout_fits(self, inputs: Mapping[str, Any], expected: TokenLayout) -> bool:
        observed = self.observed_layout(inputs)
        if self.cached_tokens(inputs) is None:
            return observed == expected
        # a cache does not say of which images its tokens are
        return observed == expected.in_one_row(expected.reference_tokens)

    def observed_layout(self, inputs: Mapping[str, Any]) -> TokenLayout:
        cached = self.cached_tokens(inputs)
        observed = super().observed_layout(inputs)
        return observed.in_one_row(cached) if cached else observed

    def count_reference_tokens(self, inputs: Mapping[str, Any], layout: TokenLayout) -> int:
        cached = self.cached_tokens(inputs)
        return super().count_reference_tokens(inputs, layout) if cached is None else cached

    def keep_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, kept: Sequence[int] | np.ndarray
    ) -> dict[str, Any]:
        if self.cached_tokens(inputs) is None:
            return super().keep_reference_tokens(inputs, layout, kept)
        return self.keep_cached(inputs, torch.as_tensor(np.asarray(kept, np.int64)))

    def reference_features(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        raise UnsupportedPipelineError(
            f"{self.name} {self.no_block_states}, so they cannot be merged later; use Prune."
        )
