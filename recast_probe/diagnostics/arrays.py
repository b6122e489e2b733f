"""The formulas, on plain arrays: the last axis is the reference tokens."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

from recast_probe._utils.checks import share_of

# rows are taken so many numbers at a time, which stay in a processor's cache
CACHED_NUMBERS = 2**17


def _in_parts(measure: Callable[[np.ndarray], np.ndarray], score: np.ndarray) -> np.ndarray:
    """A measure of each row of score (..., tokens), float64 (...), a few rows at a time."""
    rows = score.reshape(-1, score.shape[-1])
    found = np.empty(len(rows))
    count = max(1, CACHED_NUMBERS // score.shape[-1])
    for start in range(0, len(rows), count):
        found[start : start + count] = measure(rows[start : start + count])
    return found.reshape(score.shape[:-1])


def top_count(tokens: int, fraction: float) -> int:
    """How many tokens a fraction means, by `checks.share_of`: rounded half up, at least one."""
    return share_of(tokens, fraction)


def top_share(score: np.ndarray, fraction: float) -> np.ndarray:
    """Share of the mass on the top `fraction` of tokens, 0..1; NaN where there is no mass.

    Of 10 tokens, the top 25 % are 3, which is 30 %: see `checks.share_of`.
    """
    count = top_count(score.shape[-1], fraction)

    def share(rows: np.ndarray) -> np.ndarray:
        ordered = np.partition(rows, -count, axis=-1)
        top = ordered[:, -count:].sum(-1, dtype=np.float64)
        return _ratio(top, top + ordered[:, :-count].sum(-1, dtype=np.float64))

    return _in_parts(share, score)


def mass_share(score: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Share of the mass on the tokens inside, 0..1; NaN where there is no mass.

    `score` (..., tokens) and bool `inside` (..., tokens) broadcast against each other.
    """
    held, rest = (score * inside).sum(-1), (score * ~inside).sum(-1)
    return _ratio(held, held + rest)


def lorenz_curve(score: np.ndarray) -> np.ndarray:
    """Share of the mass (..., tokens + 1) held by the best 0, 1, 2, ... tokens."""
    descending = -np.sort(-score.astype(np.float64), axis=-1)
    held = np.concatenate(
        [np.zeros((*score.shape[:-1], 1)), np.cumsum(descending, axis=-1)], axis=-1
    )
    return _ratio(held, held[..., -1:])


def gini(score: np.ndarray) -> np.ndarray:
    """Gini coefficient: 0 for equal scores, (tokens - 1) / tokens for all mass on one token."""
    tokens = score.shape[-1]
    # a gap parts as many pairs as there are tokens below times tokens above; summing gaps instead
    # of scores gives exactly 0 for equal scores and never less
    below = np.arange(1.0, tokens)
    parted = below * (tokens - below)

    def coefficient(rows: np.ndarray) -> np.ndarray:
        ascending = np.sort(rows, axis=-1).astype(np.float64)
        return _ratio(np.diff(ascending, axis=-1) @ parted, tokens * ascending.sum(-1))

    return _in_parts(coefficient, score)


def entropy_bits(weights: np.ndarray) -> np.ndarray:
    """Entropy in bits of weights / sum(weights); NaN where all weights are zero."""

    def bits(rows: np.ndarray) -> np.ndarray:
        share = _ratio(rows, rows.sum(-1, keepdims=True, dtype=np.float64))
        logarithm = np.log2(share, out=np.zeros_like(share), where=share > 0)
        # adding 0 turns -0.0 into 0.0
        return -np.einsum("ij,ij->i", share, logarithm) + 0.0

    return _in_parts(bits, weights)


def auroc(score: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Probability that a token inside scores above one outside; ties count half.

    `score` (..., tokens) and bool `inside` (..., tokens) broadcast against each other. NaN where
    all scores of a row are equal, since there is no order to judge, and where no token or every
    token is inside.
    """
    rank = stats.rankdata(score, axis=-1)
    positive = inside.sum(-1)
    negative = inside.shape[-1] - positive
    area = _ratio((rank * inside).sum(-1) - positive * (positive + 1) / 2, positive * negative)
    return np.where(np.ptp(score, axis=-1) == 0, np.nan, area)


def average_precision(score: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Mean precision over the recall steps; tied scores are taken in together.

    `score` (tokens,), bool `inside` (..., tokens). NaN for constant scores, and where no token is
    inside.
    """
    if np.ptp(score) == 0:
        return np.full(inside.shape[:-1], np.nan)
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.diff(score[order]) != 0, True)
    found = np.cumsum(inside[..., order], axis=-1)[..., last_of_tie]
    precision = found / (np.flatnonzero(last_of_tie) + 1)
    recalled = np.diff(found, axis=-1, prepend=0)
    return _ratio((precision * recalled).sum(-1), found[..., -1])


def top_tokens(score: np.ndarray, count: int) -> np.ndarray:
    """Bool (..., tokens): the best `count`; equal scores by token index."""
    order = np.argsort(-score, axis=-1, kind="stable")[..., :count]
    chosen = np.zeros(score.shape, bool)
    np.put_along_axis(chosen, order, True, axis=-1)
    return chosen


def spearman_matrix(scores: np.ndarray) -> np.ndarray:
    """Spearman correlations (rows, rows) of scores (rows, tokens); NaN for constant rows."""
    ranks = stats.rankdata(scores, axis=-1)
    centred = ranks - ranks.mean(-1, keepdims=True)
    length = np.sqrt((centred**2).sum(-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(centred @ centred.T / np.outer(length, length), -1, 1)


MOST_TOKENS_COMPARED = 1024
"""Above it, sorting each pair of rows is faster than comparing all pairs of tokens."""


def kendall_matrix(scores: np.ndarray) -> np.ndarray:
    """Kendall's tau-b (rows, rows) of scores (rows, tokens); NaN for constant rows."""
    if scores.shape[-1] > MOST_TOKENS_COMPARED:
        return _pairwise(scores, lambda a, b: stats.kendalltau(a, b).statistic)
    agreeing = np.zeros((len(scores), len(scores)))
    for token in range(scores.shape[-1] - 1):
        # signs of all pairs of this token with later ones; counts in float32 are exact
        signs = np.sign(scores[:, token, None] - scores[:, token + 1 :]).astype(np.float32)
        agreeing += signs @ signs.T
    # a row agrees with itself in every pair that is no tie
    untied = np.sqrt(np.diag(agreeing))
    with np.errstate(invalid="ignore"):
        return np.clip(agreeing / untied[:, None] / untied, -1, 1)


def jaccard_matrix(scores: np.ndarray, count: int) -> np.ndarray:
    """Jaccard index (rows, rows) of the sets of the best `count` tokens."""
    chosen = top_tokens(scores, count).astype(np.int64)
    both = chosen @ chosen.T
    return both / (2 * count - both)


def rank_biased_overlap_matrix(scores: np.ndarray, persistence: float) -> np.ndarray:
    """Rank-biased overlap (rows, rows) of full rankings.

    The agreement |top d of a and of b| / d at every depth d, weighted by persistence ** (d - 1),
    with weights normalised over the finite list, so identical rankings give 1 (after Webber,
    Moffat and Zobel 2010, without their infinite tail).
    """
    tokens = scores.shape[-1]
    position = np.argsort(np.argsort(-scores, axis=-1, kind="stable"), axis=-1)
    weight = persistence ** np.arange(tokens)
    weight /= weight.sum()

    def overlap(a: np.ndarray, b: np.ndarray) -> float:
        shared = np.cumsum(np.bincount(np.maximum(a, b), minlength=tokens))
        return float((weight * shared / np.arange(1, tokens + 1)).sum())

    return _pairwise(position, overlap)


def _pairwise(rows: np.ndarray, measure) -> np.ndarray:  # type: ignore[no-untyped-def]
    matrix = np.empty((len(rows), len(rows)))
    for i in range(len(rows)):
        for j in range(i, len(rows)):
            matrix[i, j] = matrix[j, i] = measure(rows[i], rows[j])
    return matrix


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where whole is 0, without a warning about it."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)
