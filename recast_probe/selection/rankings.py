"""Which reference tokens matter: orders of tokens, best first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from recast_probe.errors import InputError

if TYPE_CHECKING:
    from recast_probe.profile import AttentionProfile


@dataclass(frozen=True, eq=False)
class Ranking:
    """An order of all reference tokens.

    Attributes:
        order: int64 (tokens,), token indices, best first.
        name: how it was made.
        score: float (tokens,), what it was sorted by, by token index; None if nothing was.
        details: settings, ready for JSON.

    Raises InputError when `order` does not name every token once.
    """

    order: np.ndarray
    name: str
    score: np.ndarray | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = np.asarray(self.order)
        order = given.astype(np.int64)  # a copy, which later changes by the caller do not reach
        if (
            given.dtype.kind not in "iu"
            or order.ndim != 1
            or not np.array_equal(np.sort(order), np.arange(len(order)))
        ):
            raise InputError("A ranking's order must name each of its tokens exactly once.")
        order.flags.writeable = False
        object.__setattr__(self, "order", order)

    @classmethod
    def from_score(cls, score: np.ndarray, name: str, details: dict[str, Any]) -> Ranking:
        """Highest score first; equal scores by token index.

        Raises:
            InputError: a score that is not a finite number.
        """
        score = np.asarray(score, dtype=np.float64)
        if not np.isfinite(score).all():
            raise InputError(f"The ranking {name!r} has scores that are not finite numbers.")
        return cls(np.argsort(-score, kind="stable"), name, score, details)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.order)

    def top(self, count: int) -> np.ndarray:
        """Indices of the best `count` tokens, ascending, int64.

        Raises:
            InputError: `count` below 1 or above the number of tokens.
        """
        if not 1 <= count <= self.tokens:
            raise InputError(
                f"Cannot keep {count} of {self.tokens} reference tokens; choose 1 to {self.tokens}."
            )
        return np.sort(self.order[:count])

    def reversed(self) -> Ranking:
        """Worst first: a control that should do harm."""
        score = None if self.score is None else -self.score
        return Ranking(self.order[::-1], f"reversed {self.name}", score, self.details)

    def __repr__(self) -> str:
        return f"Ranking({self.name!r}, {self.tokens} tokens, best {self.order[:3].tolist()})"


def cross_image(
    profile: AttentionProfile,
    blocks: Any = "single",
    steps: int | Sequence[int] | None = 0,
    heads: int | Sequence[int] | None = None,
) -> Ranking:
    """Rank by the attention that generation tokens pay (Eq. 3): the paper's ranking.

    Args:
        profile: of a run with the full reference at these steps.
        blocks: see `select_blocks`; "paper" is the paper's 20..56.
        steps: step index or indices that are averaged; None for all recorded ones.
        heads: heads that are averaged; None for all recorded ones.
    """
    score = profile.mean_score(blocks=blocks, steps=steps, heads=heads)
    selection = profile.selection_text(blocks=blocks, steps=steps, heads=heads)
    return Ranking.from_score(score.values, "cross-image", {"selection": selection})


def random(tokens: int, seed: int) -> Ranking:
    """A random order, the same for the same seed.

    Raises:
        InputError: fewer than one token.
    """
    if tokens < 1:
        raise InputError(f"A ranking needs at least 1 token, got {tokens}.")
    order = np.random.default_rng(seed).permutation(tokens)
    return Ranking(order, "random", None, {"seed": int(seed)})
