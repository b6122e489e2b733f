"""Keys and values of the text and of some reference tokens, from a cache that holds them all.

Qwen-Image 2.1 computes text and reference tokens in its first step, and later steps attend to their
keys and values in a cache. Tokens that are dropped are left out where a block asks for them; the
pipeline's cache stays whole, so that they can come back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Shape = tuple[int, int, int]


class KeptShapes(list[Any]):
    """The images' shapes in a call from which reference tokens were dropped.

    Args:
        shapes: (frame, height, width) of every image for every prompt, as the pipeline gave them.
        kept: int64 (token,), the reference tokens that stay, ascending.
    """

    def __init__(self, shapes: Sequence[Sequence[Shape]], kept: Tensor | None = None) -> None:
        super().__init__(shapes)
        self.kept = kept


@dataclass(frozen=True, eq=False)
class KeptLayer:
    """One block's keys and values, and which rows of them are attended to."""

    layer: Any
    rows: Tensor

    def get(self) -> tuple[Tensor, Tensor]:
        """Keys and values (batch, row, head, dim) of the rows that stay."""
        key, value = self.layer.get()
        rows = self.rows.to(key.device)
        return key.index_select(1, rows), value.index_select(1, rows)


@dataclass(frozen=True, eq=False)
class KeptPrefix:
    """A cache of the pipeline, seen without the rows of dropped tokens.

    Attributes:
        cache: diffusers' own.
        rows: int64, which of its rows stay, ascending.
    """

    cache: Any
    rows: Tensor

    def get_layer(self, index: int) -> KeptLayer:
        """What a block gets."""
        return KeptLayer(self.cache.get_layer(index), self.rows)
