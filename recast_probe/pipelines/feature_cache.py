"""What blocks that run from a cache ask of it, in every call, whatever the family and the rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from recast_probe.layout import TokenLayout


class KeptFeatures(Protocol):
    """(batch, generation token, width) each; ``output`` is renewed in place."""

    attention: Tensor
    output: Tensor


class FeatureCache(Protocol):
    """The cache that the blocks consult in each call."""

    layout: TokenLayout
    norms: str

    @property
    def cached(self) -> bool:
        """This call uses the cache."""

    @property
    def storing(self) -> bool:
        """What this call computes is needed later."""

    def features(self, block: int) -> KeptFeatures:
        """What is kept of a block."""

    def store_attention(self, block: int, attention: Tensor) -> None:
        """Keep attention's output of the generation tokens."""

    def store_output(self, block: int, output: Tensor) -> None:
        """Keep the output of the MLP or of the last projection."""

    def store_norms(self, block: int, norms: Tensor) -> None:
        """Keep the lengths of keys or values, (batch, token), of all tokens that go through the
        block's MLP: text where the block has one stream, generation, reference."""

    def fresh(self, block: int) -> Sequence[Tensor]:
        """For each item of the batch, the generation tokens to recompute."""
