"""Deletion and insertion curves, their areas, and how the loss grows with the dose."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from recast_probe._utils.checks import share_of
from recast_probe._utils.markup import html_table
from recast_probe.errors import InputError
from recast_probe.selection.rankings import Ranking


def curve_area(shares: np.ndarray, values: np.ndarray) -> float:
    """Area under a curve over 0..1 by the trapezoidal rule: its mean value.

    Args:
        shares: (points,), ascending from 0 to 1.
        values: (points,).

    Raises:
        InputError: shares that do not ascend from 0 to 1, or other than one value for each.

    Examples:
        >>> curve_area([0, 0.5, 1], [0, 1, 1])
        0.75
    """
    shares, values = np.asarray(shares, np.float64), np.asarray(values, np.float64)
    if shares.ndim != 1 or shares.shape != values.shape or len(shares) < 2:
        raise InputError("A curve needs at least two shares, and one value for each.")
    if shares[0] != 0 or shares[-1] != 1 or (np.diff(shares) <= 0).any():
        raise InputError(f"Shares ascend from 0 to 1, not {shares.tolist()}.")
    return float(np.trapezoid(values, shares))


def token_counts(tokens: int, shares: tuple[float, ...]) -> list[int]:
    """Numbers of tokens that shares between 0 and 1 stand for, ascending, at least 1 and fewer
    than all; equal ones once.

    Raises:
        InputError: a share outside (0, 1), or no room between none and all.

    Examples:
        >>> token_counts(16, (1 / 16, 1 / 4, 1 / 2))
        [1, 4, 8]
    """
    if not shares or not all(0 < share < 1 for share in shares):
        raise InputError(f"shares lie between 0 and 1 (which are always there), not {shares}.")
    counts = sorted({min(share_of(tokens, share), tokens - 1) for share in shares})
    if tokens < 2:
        raise InputError(f"Curves need at least 2 tokens, got {tokens}.")
    return counts


@dataclass(frozen=True)
class DoseResponse:
    """How the loss follows the dose.

    Attributes:
        rho: Spearman correlation of dose and response; 1 where every further dose does more.
        error: mean absolute difference of dose and response over the doses between 0 and 1;
            0 where a share of the mass is worth the same share of the effect.

    Examples:
        >>> dose_response([0, 0.5, 1], [0, 0.5, 1]).error
        0.0
    """

    rho: float
    error: float


def dose_response(dose: np.ndarray, response: np.ndarray) -> DoseResponse:
    """Agreement of doses with what they did.

    Args:
        dose: (points,), share of the ranking's mass that was removed, 0..1, ascending.
        response: (points,), share of the effect that was lost with it; 0 at dose 0, 1 at dose 1.

    Returns:
        NaN for rho where the response is constant, for error without a dose inside.

    Raises:
        InputError: other than one response for each dose, or doses outside 0..1.

    Examples:
        >>> found = dose_response([0, 0.25, 0.5, 1], [0, 0.5, 0.75, 1])
        >>> round(found.rho, 3), found.error
        (1.0, 0.25)
    """
    dose, response = np.asarray(dose, np.float64), np.asarray(response, np.float64)
    if dose.shape != response.shape or dose.ndim != 1 or len(dose) < 2:
        raise InputError("Give one response for each of at least two doses.")
    if dose.min() < 0 or dose.max() > 1 + 1e-9:
        raise InputError("Doses are shares of the whole, 0 to 1.")
    varied = bool(np.ptp(dose)) and bool(np.ptp(response))
    rho = float(stats.spearmanr(dose, response).statistic) if varied else np.nan
    inside = (dose > 0) & (dose < 1 - 1e-9)
    error = float(np.abs(dose - response)[inside].mean()) if inside.any() else np.nan
    return DoseResponse(rho, error)


@dataclass(frozen=True, eq=False)
class Curves:
    """A score of the image against the share of reference tokens, in a ranking's order.

    Attributes:
        ranking: whose order.
        counts: int64 (points,), tokens, from 0 to all.
        insertion: float64 (points,), the score with only the best tokens present.
        deletion: float64 (points,), the score with the best tokens absent.

    Examples:
        >>> ranking = Ranking(np.array([1, 0, 3, 2]), "by hand")
        >>> counts = np.array([0, 2, 4])
        >>> curves = Curves(ranking, counts, np.array([0, 0.8, 1]), np.array([1, 0.3, 0]))
        >>> curves
        Curves('by hand': insertion area 0.650, deletion area 0.400, from 0.000 to 1.000)
        >>> curves.sufficiency(0.5), curves.necessity(0.5)
        (0.8, 0.7)
    """

    ranking: Ranking
    counts: np.ndarray
    insertion: np.ndarray
    deletion: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """Share of the tokens that is inserted or deleted."""
        return self.counts / self.counts[-1]

    @property
    def none(self) -> float:
        """The score without reference tokens."""
        return float(self.insertion[0])

    @property
    def full(self) -> float:
        """The score with all of them."""
        return float(self.insertion[-1])

    @property
    def insertion_area(self) -> float:
        """Mean of the insertion curve, in units of the score; large for a faithful ranking."""
        return curve_area(self.shares, self.insertion)

    @property
    def deletion_area(self) -> float:
        """Mean of the deletion curve; small for a faithful ranking."""
        return curve_area(self.shares, self.deletion)

    @property
    def margin(self) -> float:
        """Insertion area minus deletion area; 0 on average for a ranking that knows nothing."""
        return self.insertion_area - self.deletion_area

    def sufficiency(self, share: float) -> float:
        """What the best share of tokens brings by itself: score minus that without any."""
        return float(self.insertion[self._point(share)] - self.none)

    def necessity(self, share: float) -> float:
        """What is lost without the best share of tokens: full score minus that without them."""
        return float(self.full - self.deletion[self._point(share)])

    def dose_response(self) -> DoseResponse:
        """Loss by deletion against the mass of what was deleted.

        The mass is the ranking's score where it has one that is never negative, as attention is;
        otherwise every token counts alike. NaN where full and none score alike.
        """
        score = self.ranking.score
        if score is None or score.min() < 0 or not score.sum():
            score = np.ones(self.ranking.tokens)
        held = np.concatenate([[0.0], np.cumsum(score[self.ranking.order])]) / score.sum()
        gap = self.full - self.none
        if not gap:
            return DoseResponse(np.nan, np.nan)
        return dose_response(np.minimum(held[self.counts], 1), (self.full - self.deletion) / gap)

    def _point(self, share: float) -> int:
        count = share_of(int(self.counts[-1]), share)
        found = np.flatnonzero(self.counts == count)
        if not len(found):
            raise InputError(
                f"The curves have no point at share {share}; they have "
                f"{', '.join(f'{each:.3g}' for each in self.shares)}."
            )
        return int(found[0])

    def __repr__(self) -> str:
        return (
            f"Curves({self.ranking.name!r}: insertion area {self.insertion_area:.3f}, deletion "
            f"area {self.deletion_area:.3f}, from {self.none:.3f} to {self.full:.3f})"
        )

    def _repr_html_(self) -> str:
        return html_table(repr(self))
