"""Which reference tokens matter: orders of tokens, best first."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from recast_probe.blocks import select_blocks
from recast_probe.content.description import described
from recast_probe.errors import InputError

if TYPE_CHECKING:
    from recast_probe.profiles.profile import AttentionProfile


@dataclass(frozen=True, eq=False)
class Ranking:
    """An order of all reference tokens.

    Attributes:
        order: int64 (tokens,), token indices, best first.
        name: how it was made.
        score: float (tokens,), what it was sorted by, by token index; None if nothing was.
        details: settings, ready for JSON.

    Raises:
        InputError: an order that does not name every token once.

    Examples:
        >>> Ranking(np.array([2, 0, 1]), "mine").top(2)
        array([0, 2])
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

        Examples:
            >>> Ranking.from_score(np.array([0.1, 0.6, 0.3]), "mine", {}).order
            array([1, 2, 0])
        """
        score = np.asarray(score, dtype=np.float64)
        if not np.isfinite(score).all():
            raise InputError(f"The ranking {name!r} has scores that are not finite numbers.")
        return cls(np.argsort(-score, kind="stable"), name, score, details)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.order)

    def describe(self) -> dict[str, Any]:
        """Name, settings and SHA-256 of the order (hexadecimal), ready for JSON."""
        order = np.ascontiguousarray(self.order, dtype="<i8")
        return {
            "name": self.name,
            "tokens": self.tokens,
            "sha256": hashlib.sha256(order.tobytes()).hexdigest(),
            "details": described(self.details),
        }

    def top(self, count: int) -> np.ndarray:
        """Indices of the best `count` tokens, ascending, int64.

        Raises:
            InputError: `count` below 1 or above the number of tokens.

        Examples:
            >>> random(tokens=16, seed=0).top(3).shape
            (3,)
        """
        if not 1 <= count <= self.tokens:
            raise InputError(
                f"Cannot keep {count} of {self.tokens} reference tokens; choose 1 to {self.tokens}."
            )
        return np.sort(self.order[:count])

    def reversed(self) -> Ranking:
        """Worst first: a control that should do harm.

        Examples:
            >>> Ranking(np.array([2, 0, 1]), "mine").reversed().order
            array([1, 0, 2])
        """
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

    Raises:
        InputError: a profile of other queries, something that was not recorded, or tokens that were
            pruned in one of the steps.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> cross_image(planted(np.arange(16.0)), blocks="all")
        Ranking('cross-image', 16 tokens, best [15, 14, 13])
    """
    return _by_attention(profile, "cross-image", "generation", blocks, steps, heads)


def self_attention(
    profile: AttentionProfile,
    blocks: Any = "single",
    steps: int | Sequence[int] | None = 0,
    heads: int | Sequence[int] | None = None,
) -> Ranking:
    """Rank by the attention that reference tokens pay one another: Attn-Prune, after FastV.

    Args:
        profile: made with ``queries="reference"``.
        blocks: see `select_blocks`.
        steps, heads: an index, or several that are averaged; None for all recorded ones.

    Raises:
        InputError: as `cross_image`.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> dataset = planted(np.arange(16.0)).dataset.assign_attrs(queries="reference")
        >>> profile = rp.AttentionProfile(dataset)
        >>> self_attention(profile, blocks="all").top(2)
        array([14, 15])
    """
    return _by_attention(profile, "self-attention", "reference", blocks, steps, heads)


def single_block(
    profile: AttentionProfile,
    block: int | str,
    steps: int | Sequence[int] | None = 0,
    heads: int | Sequence[int] | None = None,
) -> Ranking:
    """Rank by the cross-image attention of one block.

    Args:
        profile: of a run with the full reference at these steps.
        block: an index, or a name such as "single.3".
        steps, heads: an index, or several that are averaged; None for all recorded ones.

    Raises:
        InputError: not exactly one block, or one that was not recorded.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> single_block(planted(np.arange(32.0).reshape(1, 2, 1, 16)), 1).name
        'block 1'
    """
    chosen = select_blocks(block, profile.block_kinds)
    if len(chosen) != 1:
        raise InputError(f"A single-block ranking takes one block, but {block!r} is {len(chosen)}.")
    name = f"block {chosen[0]}"
    return _by_attention(profile, name, "generation", chosen[0], steps, heads)


def cosine(similarity: np.ndarray, blocks: str = "", step: int = 0) -> Ranking:
    """Rank by likeness to the mean generation token.

    The paper names a cosine score without defining it. Here a token's feature is its hidden state
    as it leaves a block in one step; the score is the cosine between the mean feature of the
    generation tokens and the feature of a reference token, averaged over blocks.

    Args:
        similarity: (block, token) or (token,), cosines; one prompt of `RunResult.similarity`.
        blocks, step: where they were recorded, for the ranking's details.

    Raises:
        InputError: cosines that are not finite numbers.

    Examples:
        >>> cosine(np.array([[0.1, 0.9, 0.4], [0.3, 0.7, 0.2]])).order
        array([1, 2, 0])
    """
    values = np.asarray(similarity, np.float64)
    mean = values.mean(0) if values.ndim == 2 else values
    return Ranking.from_score(mean, "cosine", {"blocks": blocks, "step": step})


def _by_attention(
    profile: AttentionProfile, name: str, queries: str, blocks: Any, steps: Any, heads: Any
) -> Ranking:
    if profile.queries != queries:
        raise InputError(
            f"The {name} ranking needs attention from {queries} tokens, but this profile holds "
            f'that of {profile.queries} tokens; profile with queries="{queries}".'
        )
    chosen = profile.sel(blocks, steps, heads)
    selection = {"selection": chosen.selection_text()}
    return Ranking.from_score(chosen.mean_score().values, name, selection)


def random(tokens: int, seed: int) -> Ranking:
    """A random order, the same for the same seed.

    Raises:
        InputError: fewer than one token.

    Examples:
        >>> np.array_equal(random(16, seed=1).order, random(16, seed=1).order)
        True
    """
    if tokens < 1:
        raise InputError(f"A ranking needs at least 1 token, got {tokens}.")
    order = np.random.default_rng(seed).permutation(tokens)
    return Ranking(order, "random", None, {"seed": int(seed)})
