"""Rotary positions of the reference tokens that stay, in a transformer that is given shapes.

Qwen-Image's transformer is told the (frame, height, width) of each image and makes the positions of
all of their tokens itself. For a pruned call it is given ``KeptShapes`` instead. A hook hands the
full shapes on to the rotary embedding and takes the rows of the kept tokens from what comes out, so
every number is the one of the full run, the text's positions included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor, nn

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class KeptShapes:
    """The shapes of a call from which reference tokens were dropped.

    Seen as a sequence, one entry a prompt, it lists the first image's shape and one row of all
    other tokens that are left: what ``zero_cond_t`` counts tokens by.

    Attributes:
        full: (frame, height, width) of every image, for every prompt, as the pipeline gave them.
        rows: int64, which image tokens are there, ascending, generation tokens first.
    """

    full: Sequence[Sequence[Shape]]
    rows: Tensor

    def __iter__(self) -> Iterator[list[Shape]]:
        for shapes in self.full:
            yield [shapes[0], (1, 1, len(self.rows) - prod(shapes[0]))]

    def __len__(self) -> int:
        return len(self.full)


@contextmanager
def positions_of_kept(embedding: nn.Module) -> Iterator[None]:
    """The rotary embedding understands ``KeptShapes`` while inside; then it is as it was."""
    rows: list[Tensor | None] = [None]

    def before(
        _: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        rows[0] = None
        if not arguments or not isinstance(arguments[0], KeptShapes):
            return None
        rows[0] = arguments[0].rows
        return (arguments[0].full, *arguments[1:]), named

    def after(
        _: nn.Module, __: Any, positions: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor] | None:
        if rows[0] is None:
            return None
        image, text = positions
        return image.index_select(0, rows[0].to(image.device)), text

    hooks = [
        embedding.register_forward_pre_hook(before, with_kwargs=True),
        embedding.register_forward_hook(after),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
