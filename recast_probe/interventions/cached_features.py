"""What a TokenCache keeps of one block: features, importance and ages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recast_probe.layout import TokenLayout

NOTHING = torch.empty(0)


@dataclass
class Features:
    """What is kept of one block in one branch.

    Attributes:
        attention: (batch, generation token, width), attention's output.
        output: the same shape, what the block's MLP (double-stream) or last projection
            (single-stream) gave; renewed token by token.
        importance: (batch, pool token), from the last full step.
        age: int64 (batch, pool token), cached steps since a token was fresh.
        groups: token groups of the pool, in order.
        layout: tokens of the last full step.
    """

    groups: tuple[str, ...]
    layout: TokenLayout
    attention: Tensor = NOTHING
    output: Tensor = NOTHING
    importance: Tensor = NOTHING
    age: Tensor = NOTHING

    @property
    def sizes(self) -> list[int]:
        """Tokens of each group of the pool."""
        spans = [self.layout.span(group) for group in self.groups]
        return [span.stop - span.start for span in spans]

    @property
    def generation(self) -> slice:
        """Places of the generation tokens in the pool."""
        place = self.groups.index("generation")
        sizes = self.sizes
        return slice(sum(sizes[:place]), sum(sizes[: place + 1]))
