"""Which reference tokens matter: orders of tokens, best first."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from recast_probe._utils.markup import html_table
from recast_probe.blocks import select_blocks
from recast_probe.content.description import described
from recast_probe.errors import InputError
from recast_probe.profiles.profile_input import as_profile

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

    def _repr_html_(self) -> str:
        best = ", ".join(map(str, self.order[:12].tolist()))
        rows = [
            ("tokens", self.tokens),
            ("best first", best if self.tokens <= 12 else f"{best}, ..."),
            *self.details.items(),
        ]
        return html_table(f"Ranking {self.name!r}", rows)

    def __repr__(self) -> str:
        return f"Ranking({self.name!r}, {self.tokens} tokens, best {self.order[:3].tolist()})"


def cross_image(
    profile: AttentionProfile,
    blocks: Any = "paper",
    steps: int | Sequence[int] | None = 0,
    heads: int | Sequence[int] | None = None,
) -> Ranking:
    """Rank by the attention that generation tokens pay (Eq. 3): the paper's ranking.

    Args:
        profile: of a run with the full reference at these steps.
        blocks: see `select_blocks`; by default the paper's, 20..56 in FLUX.1, and all blocks of a
            model that has no single-stream ones. ``details["selection"]`` says which they were.
        steps: step index or indices that are averaged; None for all recorded ones.
        heads: heads that are averaged; None for all recorded ones.

    Raises:
        InputError: a profile of other queries, something that was not recorded, or tokens that were
            pruned in one of the steps.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> ranking = cross_image(planted(np.arange(16.0)))
        >>> ranking
        Ranking('cross-image', 16 tokens, best [15, 14, 13])
        >>> ranking.details["selection"]
        'block all (0), step 0, all heads'
    """
    return _by_attention(profile, "cross-image", "generation", blocks, steps, heads)


def self_attention(
    profile: AttentionProfile,
    blocks: Any = "paper",
    steps: int | Sequence[int] | None = 0,
    heads: int | Sequence[int] | None = None,
) -> Ranking:
    """Rank by the attention that reference tokens pay one another: Attn-Prune, after FastV.

    Args:
        profile: made with ``queries="reference"``.
        blocks: see `select_blocks`; by default as in `cross_image`.
        steps, heads: an index, or several that are averaged; None for all recorded ones.

    Raises:
        InputError: as `cross_image`.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> dataset = planted(np.arange(16.0)).dataset.assign_attrs(queries="reference")
        >>> profile = rp.AttentionProfile(dataset)
        >>> self_attention(profile).top(2)
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
    profile = as_profile(profile)
    chosen = select_blocks(block, profile.block_kinds)
    if len(chosen) != 1:
        raise InputError(f"A single-block ranking takes one block, but {block!r} is {len(chosen)}.")
    name = f"block {chosen[0]}"
    return _by_attention(profile, name, "generation", chosen[0], steps, heads)


def cosine(similarity: Any, blocks: str = "", step: int = 0) -> Ranking:
    """Rank by likeness to the mean generation token.

    The paper names a cosine score without defining it. Here a token's feature is its hidden state
    as it leaves a block in one step; the score is the cosine between the mean feature of the
    generation tokens and the feature of a reference token, averaged over blocks.

    Args:
        similarity: (block, token) or (token,), cosines; or the result of a run of one prompt with
            the intervention ``Similarity``, which recorded them.
        blocks, step: where they were recorded, for the ranking's details; of a result it is the
            step that is taken.

    Raises:
        InputError: cosines that are not finite numbers, or something that holds none, such as a
            profile: it is of attention.

    Examples:
        >>> cosine(np.array([[0.1, 0.9, 0.4], [0.3, 0.7, 0.2]])).order
        array([1, 2, 0])
    """
    values = _cosines(similarity, step)
    mean = values.mean(0) if values.ndim == 2 else values
    return Ranking.from_score(mean, "cosine", {"blocks": blocks, "step": step})


def _cosines(given: Any, step: int) -> np.ndarray:
    recorded = getattr(given, "similarity", None)
    if isinstance(recorded, dict) and recorded:
        if step not in recorded:
            raise InputError(f"Cosines were recorded in steps {sorted(recorded)}, not in {step}.")
        prompts = np.asarray(recorded[step], np.float64)
        if len(prompts) != 1:
            raise InputError(
                f"The run had {len(prompts)} prompts; give the cosines of one, such as "
                f"result.similarity[{step}][0]."
            )
        return prompts[0]
    try:
        values = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        values = np.zeros(())
    if values.ndim not in (1, 2):
        raise InputError(
            f"{type(given).__name__} holds no cosines of hidden states, shape (token,) or (block, "
            "token). Record them: probe.generate(..., interventions=rp.interventions.Similarity())"
            ", then rp.rank.cosine(result); or rank in the run itself: "
            'probe.recast(..., ranking="cosine").'
        )
    return values


def _by_attention(
    profile: AttentionProfile, name: str, queries: str, blocks: Any, steps: Any, heads: Any
) -> Ranking:
    profile = as_profile(profile)
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
