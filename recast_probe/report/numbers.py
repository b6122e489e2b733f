"""Key numbers with their explanations in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Number:
    """A key number of a report: its value, what it is called, and what it means."""

    value: float | int | str | None
    explanation: str = ""
    label: str = ""
    unit: str = ""


# Label, explanation and unit for the names that diagnostics use in their summaries.
KNOWN = {
    "fraction": ("Top tokens counted", "Share of the reference tokens called the top.", ""),
    "counted_fraction": (
        "Share of the tokens counted",
        "What whole tokens make of that share; an even spread would give them as much attention.",
        "",
    ),
    "top_share_of_mean_score": (
        "Attention on the top tokens, of the mean score",
        "Share of the attention, averaged over blocks, that its most attended tokens hold.",
        "",
    ),
    "mean_of_block_top_shares": (
        "Attention on the top tokens of each block, mean over blocks",
        "The same share, taken in every block with its own top tokens, then averaged.",
        "",
    ),
    "gini_of_mean_score": (
        "Gini of the mean attention",
        "0: every reference token gets the same attention. 1: one token gets all.",
        "",
    ),
    "mean_of_block_ginis": (
        "Gini of the blocks",
        "The same index taken in every block, then averaged.",
        "",
    ),
    "mass_share": (
        "Attention on the subject",
        "Share of the attention to the reference that falls on the mask.",
        "",
    ),
    "base_rate": ("Size of the subject", "Share of the reference tokens in the mask.", ""),
    "enrichment": (
        "Preference for the subject",
        "Attention on the mask compared with its size: 1 means no preference.",
        "times",
    ),
    "precision_at_k": ("Precision of the top k", "Share of the top tokens inside the mask.", ""),
    "iou_at_k": (
        "Overlap of the top k",
        "Top tokens inside the mask, out of all that are top or masked.",
        "",
    ),
    "auroc": (
        "Subject told from background (AUROC)",
        "Chance that a token of the subject gets more attention than another; 0.5 where attention "
        "knows neither the subject nor where subjects are.",
        "",
    ),
    "center_auroc": (
        "AUROC of the middle alone",
        "What a map that only prefers the middle of the image would reach on the same mask.",
        "",
    ),
    "other_masks_auroc": (
        "AUROC against other subjects' masks",
        "The same attention held against masks of other subjects: what position alone explains.",
        "",
    ),
    "average_precision": (
        "Average precision",
        "Share of subject tokens met while going down the ranking, averaged; 1 is perfect.",
        "",
    ),
    "k": ("Top tokens", "Number of reference tokens called the top.", "tokens"),
    "p_value": (
        "p-value",
        "How often a randomly shifted mask agrees as well or better; shifts keep its shape and "
        "size, and lose its position.",
        "",
    ),
    "first": (
        "Entropy at the first step",
        "How widely attention spreads over the reference; one bit less halves the tokens.",
        "bits",
    ),
    "last": (
        "Entropy at the last step",
        "The same when the image is nearly done.",
        "bits",
    ),
    "maximum": (
        "Highest possible entropy",
        "Reached when all reference tokens get the same.",
        "bits",
    ),
    "conditional_first": (
        "Entropy of one position, first step",
        "How widely a single generated position spreads its attention, on average.",
        "bits",
    ),
    "conditional_last": (
        "Entropy of one position, last step",
        "The same when the image is nearly done.",
        "bits",
    ),
    "mutual_information_first": (
        "Mutual information, first step",
        "How much the position being generated says about where it looks; positions count by the "
        "attention that they pay to the reference.",
        "bits",
    ),
    "mutual_information_last": (
        "Mutual information, last step",
        "The same when the image is nearly done.",
        "bits",
    ),
    "effective_tokens_first": (
        "Effective tokens, first step",
        "So many tokens with equal shares would have the same entropy.",
        "tokens",
    ),
    "effective_tokens_last": (
        "Effective tokens, last step",
        "The same when the image is nearly done.",
        "tokens",
    ),
    "spearman": (
        "Agreement of rankings (Spearman)",
        "1: the same order of tokens. 0: unrelated orders.",
        "",
    ),
    "kendall": (
        "Agreement of rankings (Kendall)",
        "1: every pair of tokens in the same order. 0: as many against as for.",
        "",
    ),
    "jaccard": (
        "Shared top tokens (Jaccard)",
        "Tokens in the top of both rankings, out of those in the top of either.",
        "",
    ),
    "rank_biased_overlap": (
        "Rank-biased overlap",
        "Agreement that counts the best ranks most; 1 is the same order.",
        "",
    ),
}


def explained(name: str, value: Number | float | int | str | None) -> Number:
    """A summary's entry as a Number, with the known label and explanation where it brings none."""
    readable = name.replace("_", " ")
    label, explanation, unit = KNOWN.get(name, (readable[:1].upper() + readable[1:], "", ""))
    if not isinstance(value, Number):
        return Number(value, explanation, label, unit)
    return Number(
        value.value, value.explanation or explanation, value.label or label, value.unit or unit
    )


def is_number(value: Any) -> bool:
    """True for integers and floats of Python and NumPy, not for True and False."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def formatted(value: Any) -> str:
    """A value for people: three significant digits, thousands apart, no bare nan or None."""
    if value is None:
        return "not available"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if not is_number(value):
        return str(value)
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    number = float(value)
    if math.isnan(number):
        return "not available"
    if math.isinf(number):
        return "infinite" if number > 0 else "minus infinite"
    if number == 0:
        return "0"
    size = math.floor(math.log10(abs(number)))
    if size < -4:
        return f"{number:.2e}"
    return f"{number:,.{min(max(2 - size, 0), 6)}f}"
