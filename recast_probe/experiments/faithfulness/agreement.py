"""Does a ranking say what taking tokens away says?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from recast_probe.errors import InputError
from recast_probe.selection.group_effects import check_groups
from recast_probe.selection.rankings import Ranking


def group_agreement(
    ranking: Ranking, effects: Sequence[float] | np.ndarray, groups: Sequence[np.ndarray]
) -> float:
    """Spearman correlation of a ranking with causal effects, group by group of tokens.

    Args:
        ranking: its groups stand in the order of the mean place of their tokens.
        effects: (groups,), such as `details["effects"]` of `rank.causal_oracle`.
        groups: token indices of each; every token in exactly one.

    Returns:
        -1..1; NaN where all effects are equal.

    Raises:
        InputError: groups that do not fit the ranking or the effects.

    Examples:
        >>> ranking = Ranking(np.array([2, 3, 0, 1]), "by hand")
        >>> round(group_agreement(ranking, [0.1, 0.5], [np.array([0, 1]), np.array([2, 3])]), 3)
        1.0
    """
    groups = [np.asarray(group, np.int64) for group in groups]
    if len(check_groups(groups)) != ranking.tokens or len(groups) != len(effects):
        raise InputError("Effects, groups and ranking must be of the same tokens.")
    place = np.empty(ranking.tokens)
    place[ranking.order] = np.arange(ranking.tokens)
    early = [-place[group].mean() for group in groups]
    if not np.ptp(effects) or not np.ptp(early):
        return float("nan")
    return float(stats.spearmanr(early, effects).statistic)
