"""Budgets by mass: as many of the best tokens as hold a share of the attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recast_probe.errors import InputError
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.selection.rankings import Ranking
from recast_probe.selection.schedules import Listed, score_of_every_step


@dataclass(frozen=True)
class MassShare:
    """As many of the best tokens as hold a share of the mass, by the ranking that is in use.

    For ``Prune`` and ``Recast``; with ``Recast`` the number is known when the run has ranked its
    tokens, and again after each new ranking.

    Attributes:
        share: fraction of the ranking's score, above 0 and up to 1.

    Raises:
        InputError: a share outside (0, 1].

    Examples:
        >>> ranking = Ranking.from_score(np.array([0.1, 0.6, 0.3]), "mine", {})
        >>> MassShare(0.8).tokens_of(ranking)
        2
    """

    share: float

    def __post_init__(self) -> None:
        _check_share(self.share)

    def tokens_of(self, ranking: Ranking) -> int:
        """How many tokens that is; see `mass_threshold`."""
        return mass_threshold(ranking, self.share)


def mass_threshold(ranking: Ranking, share: float) -> int:
    """The smallest number of best tokens that hold `share` of a ranking's score.

    Raises:
        InputError: a share outside (0, 1], or a ranking without scores or with negative ones.

    Examples:
        >>> ranking = Ranking.from_score(np.array([0.1, 0.6, 0.3]), "mine", {})
        >>> mass_threshold(ranking, 0.5)
        1
    """
    _check_share(share)
    if ranking.score is None or ranking.score.min() < 0 or not ranking.score.sum():
        raise InputError(f"{ranking!r} has no mass: it was not made from attention scores.")
    held = np.cumsum(ranking.score[ranking.order], dtype=np.float64)
    # a rounding error must not cost a token
    return int(np.searchsorted(held / held[-1], share - 1e-12) + 1)


def mass_threshold_per_step(
    profile: AttentionProfile, share: float, *, blocks: Any = "paper", heads: Any = None
) -> Listed:
    """In every step the smallest number of tokens that hold `share` of its mass.

    Args:
        profile: of a full run, with every step recorded.
        blocks: see `select_blocks`; by default the paper's, and all blocks of a model that has no
            single-stream ones.
        heads: an index, or several; None for all recorded ones.

    Raises:
        InputError: as `mass_threshold`, or a step that is not recorded.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> profile = planted([[[[1] * 16]], [[[1] * 8 + [0] * 8]]])
        >>> mass_threshold_per_step(profile, 0.5).tokens
        (8, 4)
    """
    counts = [
        mass_threshold(Ranking.from_score(values, "step", {}), share)
        for values in score_of_every_step(profile, blocks, heads)
    ]
    return Listed(tuple(counts), f"{share:.0%} of the mass")


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise InputError(f"A share of the mass lies above 0 and up to 1, got {share}.")
