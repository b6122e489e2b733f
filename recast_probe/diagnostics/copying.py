"""Which heads copy place by place, and which broadcast the same to every place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from recast_probe.diagnostics.entropy import mutual_information
from recast_probe.diagnostics.results import (
    Result,
    Words,
    checked_scores,
    labelled,
    mean_over,
)
from recast_probe.errors import InputError
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.profiles.profile_input import as_profile


@dataclass(frozen=True, repr=False)
class CopyHeads(Result):
    """Copying and broadcasting heads, every value a mean over the selected steps.

    Attributes:
        information: (block, head), bits: `mutual_information` of generation and reference token,
            how much the place of a generation token says about where it looks. 0 for a head that
            looks at the same tokens from every place (broadcast), up to ``maximum`` for one that
            looks at a different token from each (copy).
        mass: (block, head), the fraction of their attention that generation tokens pay to the
            reference.
        copying: bool (block, head): ``information`` of at least ``threshold`` times the maximum,
            at a mass of at least ``min_mass``.
        heads: (block, head) of these, most information first.
        maximum: bits, log2 of the smaller number of generation and reference tokens.
        threshold, min_mass, selection: as asked for.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> profile = planted(np.full((1, 2, 2, 16), 1 / 32))
        >>> found = rp.copy_heads(profile)
        >>> found.information.dims, found.maximum
        (('block', 'head'), 4.0)
    """

    name: ClassVar[str] = "copy_heads"
    title: ClassVar[str] = "Which heads copy?"
    words: ClassVar[Words] = {
        "copy_heads": ("Copy heads", "Heads whose place decides where they look.", "heads"),
        "all_heads": ("All heads", "Those looked at.", "heads"),
        "highest_information": ("Highest mutual information", "Of one head.", "bits"),
        "median_information": ("Median mutual information", "Half of the heads have more.", "bits"),
        "maximum": (
            "Highest possible information",
            "When every place looks at a token of its own.",
            "bits",
        ),
    }

    information: xr.DataArray
    mass: xr.DataArray
    copying: xr.DataArray
    heads: tuple[tuple[int, int], ...]
    maximum: float
    threshold: float
    min_mass: float
    selection: str

    def summary(self) -> dict[str, float]:
        return {
            "copy_heads": len(self.heads),
            "all_heads": self.information.size,
            "highest_information": float(self.information.max()),
            "median_information": float(self.information.median()),
            "maximum": self.maximum,
        }

    def __repr__(self) -> str:
        return (
            f"CopyHeads({len(self.heads)} of {self.information.size} heads, up to "
            f"{float(self.information.max()):.2f} of {self.maximum:.2f} bits; {self.selection})"
        )


def copy_heads(
    profile: AttentionProfile, *, threshold: float = 0.5, min_mass: float = 0.05
) -> CopyHeads:
    """Find copy heads by the mutual information between a place and where it looks.

    See ``mutual_information``. A head with hardly any mass on the reference reads nothing there,
    whatever its information; ``min_mass`` leaves it out.

    Args:
        threshold: share of the largest possible information, 0..1.
        min_mass: fraction of attention, 0..1.

    Raises:
        InputError: thresholds outside 0..1, scores that are NaN, a profile of other queries or
            one that holds no mutual information, as those of format 1.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> profile = planted(np.full((1, 2, 2, 16), 1 / 32))
        >>> copy_heads(profile)
        CopyHeads(4 of 4 heads, up to 4.00 of 4.00 bits; blocks 0-1, step 0, all heads)
    """
    for name, value in (("threshold", threshold), ("min_mass", min_mass)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} must lie from 0 to 1, got {value}.")
    profile = as_profile(profile)
    if profile.queries != "generation":
        raise InputError(
            f"Generation tokens copy, but this profile is of {profile.queries} tokens."
        )
    score = checked_scores(profile)
    information = head_information(profile)
    mass = score.sum("token").mean("step", dtype=np.float64).values
    grid = profile.layout.generation.size, profile.layout.reference_tokens
    maximum = math.log2(min(grid))
    copying = (information >= threshold * maximum) & (mass >= min_mass)
    found = np.argwhere(copying)
    order = np.argsort(-information[copying], kind="stable")
    numbers = score["block"].values, score["head"].values
    return CopyHeads(
        information=labelled(information, score, "information", "block", "head"),
        mass=labelled(mass, score, "mass", "block", "head"),
        copying=labelled(copying, score, "copying", "block", "head"),
        heads=tuple((int(numbers[0][b]), int(numbers[1][h])) for b, h in found[order]),
        maximum=maximum,
        threshold=float(threshold),
        min_mass=float(min_mass),
        selection=profile.selection_text(),
    )


def head_information(profile: AttentionProfile) -> np.ndarray:
    """Mutual information of every head in bits (block, head), mean over steps."""
    return mean_over(mutual_information(profile), "step")
