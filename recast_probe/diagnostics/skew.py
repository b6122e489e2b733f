"""How unequally reference tokens share the attention (Section 2.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from recast_probe.blocks import Blocks
from recast_probe.diagnostics import arrays
from recast_probe.diagnostics.results import (
    Result,
    Scores,
    Words,
    checked_fraction,
    checked_scores,
    head_mean,
    labelled,
    selected,
    selection_text,
    warn_if_nan,
)

# The two readings, in the words of every table, report and verdict; {top} is `top_words`.
OF_MEAN_SCORE = "{top} of tokens, of the mean score"
OF_BLOCKS = "{top} of tokens of each block, mean over blocks"


def top_words(tokens: int, fraction: float = 0.25) -> str:
    """ "top 25 %"; the share that is really counted where no whole number of tokens is that:
    "top 26 % (13 of 50 tokens)"."""
    count = arrays.top_count(tokens, fraction)
    if math.isclose(count, fraction * tokens, rel_tol=1e-9):
        return f"top {100 * fraction:.3g} %"
    return f"top {100 * count / tokens:.3g} % ({count} of {tokens} tokens)"


@dataclass(frozen=True, repr=False)
class Skew(Result):
    """Concentration of the scores, in two readings that the paper does not tell apart.

    Attributes:
        fraction: the top share of tokens that is asked about; `counted` is the share that whole
            tokens make of it.
        tokens: reference tokens.
        top_tokens: how many of them are the top.
        top_share_of_mean_score: mass on the top tokens of the score averaged over steps, blocks
            and heads (Eq. 3), 0..1.
        mean_of_block_top_shares: the same for each step and block (mean over heads), then
            averaged, each counting the same. With equal mass in all of them it is at least as
            large, since they may prefer different tokens; where those with most mass are also the
            most skewed, it can be smaller.
        gini_of_mean_score, mean_of_block_ginis: Gini coefficients in the same two readings.
        block_top_shares: (step, block).
        lorenz: (token_share,), share of mass held by the best tokens, of the mean score.
        selection: what was averaged.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> found = rp.skew(planted(np.ones(10)[:, None] * np.ones(16)))
        >>> found.top_tokens, found.counted
        (4, 0.25)
    """

    name: ClassVar[str] = "skew"
    title: ClassVar[str] = "How unequal"
    highlights: ClassVar[tuple[str, ...]] = ("top_share_of_mean_score",)
    words: ClassVar[Words] = {
        "fraction": ("Top tokens counted", "Share of the reference tokens called the top."),
        "counted_fraction": (
            "Share of the tokens counted",
            "What whole tokens make of that; an even spread would give them as much attention.",
        ),
        "top_share_of_mean_score": (
            "Attention on the top tokens, of the mean score",
            "Share of the attention, averaged over blocks, that its most attended tokens hold.",
        ),
        "mean_of_block_top_shares": (
            "Attention on the top tokens of each block, mean over blocks",
            "The same share, taken in every block with its own top tokens, then averaged.",
        ),
        "gini_of_mean_score": (
            "Gini of the mean attention",
            "0: every reference token gets the same attention. 1: one token gets all.",
        ),
        "mean_of_block_ginis": (
            "Gini of the blocks",
            "The same index taken in every block, then averaged.",
        ),
    }

    fraction: float
    tokens: int
    top_tokens: int
    top_share_of_mean_score: float
    mean_of_block_top_shares: float
    gini_of_mean_score: float
    mean_of_block_ginis: float
    block_top_shares: xr.DataArray
    lorenz: xr.DataArray
    selection: str

    @property
    def counted(self) -> float:
        """Share of the tokens that was counted as the top: 3 of 10 for the top 25 %."""
        return self.top_tokens / self.tokens

    def summary(self) -> dict[str, float]:
        return {
            "fraction": self.fraction,
            "counted_fraction": self.counted,
            "top_share_of_mean_score": self.top_share_of_mean_score,
            "mean_of_block_top_shares": self.mean_of_block_top_shares,
            "gini_of_mean_score": self.gini_of_mean_score,
            "mean_of_block_ginis": self.mean_of_block_ginis,
        }

    def __repr__(self) -> str:
        top = top_words(self.tokens, self.fraction)
        return (
            f"Skew({top} hold {self.top_share_of_mean_score:.1%} of the mean score, "
            f"{self.mean_of_block_top_shares:.1%} per block; {self.selection})"
        )


def skew(scores: Scores, fraction: float = 0.25, *, blocks: Blocks = "all") -> Skew:
    """Share of attention on the top `fraction` of reference tokens, Lorenz curve and Gini.

    Args:
        scores: a profile, or an array (step, block, head, token), of which only token must be
            there.
        fraction: the top share of tokens, above 0 and up to 1.
        blocks: short for ``profile.sel(blocks=blocks)``.

    Raises:
        InputError: a fraction outside (0, 1], or scores that are NaN.

    Examples:
        >>> found = skew(xr.DataArray([0.05, 0.3, 0.05, 0.1], dims="token"))
        >>> round(found.top_share_of_mean_score, 3), found.top_tokens
        (0.6, 1)
        >>> found
        Skew(top 25 % hold 60.0% of the mean score, 60.0% per block; scores of 4 tokens)
    """
    fraction = checked_fraction(fraction)
    scores = selected(scores, blocks)
    score = checked_scores(scores)
    per_block = head_mean(score)
    mean = per_block.mean((0, 1), dtype=np.float64)
    shares = arrays.top_share(per_block, fraction)
    warn_if_nan(shares, "Blocks without any attention to the reference have no skew: NaN.")
    held = arrays.lorenz_curve(mean)
    return Skew(
        fraction=fraction,
        tokens=len(mean),
        top_tokens=arrays.top_count(len(mean), fraction),
        top_share_of_mean_score=float(arrays.top_share(mean, fraction)),
        mean_of_block_top_shares=float(shares.mean()),
        gini_of_mean_score=float(arrays.gini(mean)),
        mean_of_block_ginis=float(arrays.gini(per_block).mean()),
        block_top_shares=labelled(shares, score, "block_top_shares", "step", "block"),
        lorenz=xr.DataArray(
            held,
            dims="token_share",
            coords={"token_share": np.linspace(0, 1, len(held))},
            name="mass_share",
        ),
        selection=selection_text(scores),
    )
