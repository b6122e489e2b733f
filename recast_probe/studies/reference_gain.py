"""How much of what the reference adds an arm keeps, on the scale from "no reference" to "full".

Retention (mean of an arm over mean of the full run) does not start at 0: a run that never sees the
reference has a score too. Here such a run counts 0 and the full run 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from recast_probe.diagnostics.intervals import (
    Interval,
    difference_interval,
    ratio_interval,
    untold,
)
from recast_probe.errors import InputError
from recast_probe.studies.statistics import UNITS, by_subject, paired

UNDEFINED = "not defined: full and none cannot be told apart"


def gain_interval(
    kept: Sequence[np.ndarray],
    added: Sequence[np.ndarray],
    *,
    confidence: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
) -> Interval:
    """Mean of what an arm keeps over mean of what the reference adds, pair by pair.

    Not defined, with a mean of NaN, unless the interval of what is added lies above 0: else it is
    not known that the reference adds anything, and a share of it means nothing.

    Args:
        kept: arm minus none, one array for each subject.
        added: full minus none.

    Raises:
        InputError: as `difference_interval`.
    """
    known = difference_interval(added, confidence=confidence, draws=draws, seed=seed)
    if not known.low > 0:
        return untold(math.nan, confidence, known.count, known.method, UNDEFINED)
    return ratio_interval(kept, added, confidence=confidence, draws=draws, seed=seed)


def reference_gain(
    table: pd.DataFrame,
    value: str,
    *,
    full: str = "full",
    none: str = "none",
    arm: str = "arm",
    units: Sequence[str] = UNITS,
    confidence: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
) -> pd.DataFrame:
    """`gain_interval` of every arm but `full` and `none`, which are the ends of the scale.

    Returns:
        By arm: gain with low and high, as fractions, below 0 worse than no reference, NaN where it
        is not defined; subjects, method.

    Raises:
        InputError: as `means`; no arm `full` or `none`.

    Examples:
        >>> half, full = [0.5, 0.5, 0.4, 0.5], [0.8, 0.9, 0.7, 0.8]
        >>> table = pd.DataFrame({"none": [0.2] * 4, "half": half, "full": full})
        >>> table["subject"], table["prompt"] = ["fox", "hen", "owl", "cat"], "in snow"
        >>> rows = table.melt(["subject", "prompt"], var_name="arm", value_name="score")
        >>> reference_gain(rows, "score").gain.round(3).to_dict()
        {'half': 0.458}
    """
    wide = paired(table, value, arm, units)
    for name in (full, none):
        if name not in wide.columns:
            raise InputError(f"There is no arm {name!r}; there is {', '.join(wide.columns)}.")
    added, rows = by_subject(wide[full] - wide[none]), []
    for name in wide.columns.drop([full, none]):
        kept = by_subject(wide[name] - wide[none])
        found = gain_interval(kept, added, confidence=confidence, draws=draws, seed=seed)
        rows.append(
            {
                arm: name,
                "gain": found.mean,
                "low": found.low,
                "high": found.high,
                "subjects": found.count,
                "method": found.method,
            }
        )
    columns = [arm, "gain", "low", "high", "subjects", "method"]
    return pd.DataFrame(rows, columns=columns).set_index(arm)
