"""How spread out the attention to the reference is, in bits (Section 2.4)."""

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
    checked_scores,
    head_mean,
    labelled,
    mean_over,
    selected,
    selection_text,
    warn_if_nan,
)
from recast_probe.errors import InputError
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.profiles.profile_input import as_profile

WEIGHTED = "mass_weighted_conditional_entropy"
MISSING = (
    f"This profile holds no {WEIGHTED}, which mutual information is made of: it was written by an "
    "earlier version, or was built without it. Profile the run again to have it."
)
# a head's mass below it: its scores come near the least number of float32, and lose digits
FAINT = 1e-30
ROUNDING_BITS = 1e-5
LATER = "The same when the image is nearly done."


@dataclass(frozen=True, repr=False)
class Entropy(Result):
    """Entropies of the normalised attention to the reference, all in bits.

    Attributes:
        marginal: (step,), of the score averaged over blocks and heads: the paper's curve.
        conditional: (step,), mean over blocks and heads of the entropy that one generation
            token's own distribution has. NaN where scores were given as an array, which does not
            tell.
        information: (step,), mean over blocks and heads of that head's mutual information (of the
            single heads, not of their mixture); see `mutual_information`. None for a profile that
            does not hold what it is made of, as those of format 1.
        effective_tokens: (step,), 2 ** marginal.
        block_marginal, block_conditional: (step, block), mean over heads before and after.
        maximum: log2 of the number of reference tokens.
        selection: what was averaged.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> profile = planted(np.ones((2, 1, 1, 16)))
        >>> rp.entropy(profile).marginal.values
        array([4., 4.])
    """

    name: ClassVar[str] = "entropy"
    title: ClassVar[str] = "How focused"
    highlights: ClassVar[tuple[str, ...]] = ("first", "last")
    words: ClassVar[Words] = {
        "first": (
            "Entropy at the first step",
            "How widely attention spreads over the reference; one bit less halves the tokens.",
            "bits",
        ),
        "last": ("Entropy at the last step", LATER, "bits"),
        "maximum": ("Highest possible entropy", "When all reference tokens get the same.", "bits"),
        "conditional_first": (
            "Entropy of one position, first step",
            "How widely a single generated position spreads its attention, on average.",
            "bits",
        ),
        "conditional_last": ("Entropy of one position, last step", LATER, "bits"),
        "mutual_information_first": (
            "Mutual information, first step",
            "How much the position being generated says about where it looks; positions count by "
            "the attention that they pay to the reference.",
            "bits",
        ),
        "mutual_information_last": ("Mutual information, last step", LATER, "bits"),
        "effective_tokens_first": (
            "Effective tokens, first step",
            "So many tokens with equal shares would have the same entropy.",
            "tokens",
        ),
        "effective_tokens_last": ("Effective tokens, last step", LATER, "tokens"),
    }

    marginal: xr.DataArray
    conditional: xr.DataArray
    information: xr.DataArray | None
    effective_tokens: xr.DataArray
    block_marginal: xr.DataArray
    block_conditional: xr.DataArray
    maximum: float
    selection: str

    @property
    def mutual_information(self) -> xr.DataArray:
        """`information`.

        Raises:
            InputError: the profile did not hold what it is made of.
        """
        if self.information is None:
            raise InputError(MISSING)
        return self.information

    def summary(self) -> dict[str, float]:
        found = {
            "first": float(self.marginal[0]),
            "last": float(self.marginal[-1]),
            "maximum": self.maximum,
            "conditional_first": float(self.conditional[0]),
            "conditional_last": float(self.conditional[-1]),
            "effective_tokens_first": float(self.effective_tokens[0]),
            "effective_tokens_last": float(self.effective_tokens[-1]),
        }
        if self.information is not None:
            found |= {
                "mutual_information_first": float(self.information[0]),
                "mutual_information_last": float(self.information[-1]),
            }
        return found

    def __repr__(self) -> str:
        return (
            f"Entropy({float(self.marginal[0]):.2f} to {float(self.marginal[-1]):.2f} of "
            f"{self.maximum:.2f} bits; {self.selection})"
        )


def entropy(scores: Scores, *, blocks: Blocks = "all") -> Entropy:
    """Marginal and conditional entropy per step and block, in bits.

    Args:
        scores: a profile, or an array (step, block, head, token), of which only token must be
            there and whose conditional entropies are NaN.
        blocks: short for ``profile.sel(blocks=blocks)``.

    Raises:
        InputError: scores that are NaN.

    Examples:
        >>> two_steps = xr.DataArray([[1, 1, 1, 1], [1, 1, 0, 0]], dims=("step", "token"))
        >>> found = entropy(two_steps)
        >>> found.marginal.values, found.effective_tokens.values
        (array([2., 1.]), array([4., 2.]))
    """
    scores = selected(scores, blocks)
    score = checked_scores(scores)
    information = None
    if isinstance(scores, AttentionProfile):
        per_query = scores.conditional_entropy
        if WEIGHTED in scores.dataset:
            found = mean_over(mutual_information(scores), "block", "head")
            information = labelled(found, score, "mutual_information", "step")
    else:
        per_query = xr.full_like(score.isel(token=0, drop=True), np.nan, dtype=np.float64)
    per_block = head_mean(score)
    marginal = arrays.entropy_bits(per_block.mean(1, dtype=np.float64))
    block_marginal = arrays.entropy_bits(per_block)
    undefined = block_marginal
    if isinstance(scores, AttentionProfile):
        undefined = np.append(block_marginal, per_query.values)
    warn_if_nan(
        undefined,
        "Some blocks have no attention to the reference, or no conditional entropy: entropies that "
        "include them are NaN.",
    )
    return Entropy(
        marginal=labelled(marginal, score, "marginal", "step"),
        conditional=labelled(mean_over(per_query, "block", "head"), score, "conditional", "step"),
        information=information,
        effective_tokens=labelled(2**marginal, score, "effective_tokens", "step"),
        block_marginal=labelled(block_marginal, score, "block_marginal", "step", "block"),
        block_conditional=labelled(
            mean_over(per_query, "head"), score, "block_conditional", "step", "block"
        ),
        maximum=math.log2(score.sizes["token"]),
        selection=selection_text(scores),
    )


def mutual_information(profile: AttentionProfile) -> xr.DataArray:
    """Mutual information of generation token and reference token, (step, block, head), in bits.

    Of their joint distribution given that attention lands on the reference: a generation token
    counts as much as the attention it pays to the reference. It is the entropy of the score minus
    the conditional entropy weighted in the same way. 0 where every place looks alike; at most log2
    of the smaller number of tokens. Rounding to float32 leaves errors of about 1e-6 bits, below 0
    too, which count as 0. NaN, with a warning, where a head pays the reference nothing.

    Raises:
        InputError: a profile that does not hold the weighted conditional entropy, as those of
            format 1; scores that are NaN, since tokens were pruned.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> score = np.full((1, 1, 2, 16), 1 / 32)
        >>> profile = planted(score, conditional=np.full((1, 1, 2), 3.0))
        >>> mutual_information(profile).values
        array([[[1., 1.]]])
    """
    profile = as_profile(profile)
    if WEIGHTED not in profile.dataset:
        raise InputError(MISSING)
    score, per_query = checked_scores(profile), profile.variable(WEIGHTED)
    bits = arrays.entropy_bits(score.values) - per_query.values.astype(np.float64)
    faint = score.values.sum(-1, dtype=np.float64) < FAINT
    bits = np.where(faint, np.nan, bits)
    warn_if_nan(
        bits,
        "Some heads pay the reference no attention, or less than 1e-30 of it: their mutual "
        "information is NaN.",
    )
    # an information is not below 0; what is, is rounding
    bits = np.where(np.abs(bits) < ROUNDING_BITS, np.maximum(bits, 0), bits)
    return labelled(bits, score, "mutual_information", "step", "block", "head")
