"""How a head or block reads the reference, beside what it does to the image."""

from __future__ import annotations

import numpy as np
import xarray as xr

from recast_probe.diagnostics import arrays
from recast_probe.diagnostics.copying import head_information
from recast_probe.diagnostics.results import checked_fraction, checked_scores
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.profiles.profile_input import as_profile


def reading(profile: AttentionProfile, fraction: float = 0.25) -> xr.Dataset:
    """Skew and entropy of every head, means over the steps.

    Returns:
        (block, head) each: mass (fraction of attention on the reference), top_share (of the top
        fraction of tokens, of the reference's mass), gini, marginal_entropy, conditional_entropy
        (each generation token counted once) and information (`mutual_information`), in bits. Take
        ``.mean("head")`` for blocks.

    Raises:
        InputError: scores that are NaN, a fraction outside (0, 1], or a profile that does not hold
            what `mutual_information` is made of.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> profile = planted(np.full((1, 2, 2, 16), 1 / 32))
        >>> reading(profile)["mass"].values
        array([[0.5, 0.5],
               [0.5, 0.5]])
    """
    count_fraction = checked_fraction(fraction)
    profile = as_profile(profile)
    score = checked_scores(profile)
    values = {
        "mass": score.values.sum(-1, dtype=np.float64),
        "top_share": arrays.top_share(score.values, count_fraction),
        "gini": arrays.gini(score.values),
        "marginal_entropy": arrays.entropy_bits(score.values),
        "conditional_entropy": profile.conditional_entropy.values.astype(np.float64),
    }
    means = {name: each.mean(0) for name, each in values.items()}
    means["information"] = head_information(profile)
    labels = {"block": score["block"].values, "head": score["head"].values}
    return xr.Dataset(
        {name: (("block", "head"), each) for name, each in means.items()},
        coords=labels,
        attrs={"selection": profile.selection_text()},
    )
