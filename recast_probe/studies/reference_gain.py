"""How much of what the reference adds an arm keeps, on the scale from "no reference" to "full".

Retention (mean of an arm over mean of the full run) does not start at 0: a run that never sees the
reference has a score too. Here such a run counts 0 and the full run 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from recast_probe.errors import InputError
from recast_probe.studies.resampling import bootstrap, bootstrap_ratio
from recast_probe.studies.statistics import UNITS, paired

UNDEFINED = "not defined: full and none are alike"


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
    """(arm - none) / (full - none) of the means, paired, for every other arm.

    NaN in every arm where the interval of full - none holds 0, or where there is none: then it is
    not known that the reference adds anything, and a share of it means nothing.

    Returns:
        By arm: gain with low and high, as fractions; below 0 worse than no reference.

    Raises:
        InputError: as `means`; no arm `full` or `none`.
    """
    wide = paired(table, value, arm, units)
    for name in (full, none):
        if name not in wide.columns:
            raise InputError(f"There is no arm {name!r}; there is {', '.join(wide.columns)}.")
    settings = {"confidence": confidence, "draws": draws, "seed": seed}
    added = by_subject(wide[full] - wide[none])
    known = bootstrap(added, **settings)  # type: ignore[arg-type]
    defined = known.low > 0 or known.high < 0
    rows = []
    for name in wide.columns.drop([full, none]):
        row = {arm: name, "gain": np.nan, "low": np.nan, "high": np.nan}
        if defined:
            kept = by_subject(wide[name] - wide[none])
            found = bootstrap_ratio(kept, added, **settings)  # type: ignore[arg-type]
            row |= {"gain": found.mean, "low": found.low, "high": found.high}
        rows.append(row)
    return pd.DataFrame(rows, columns=[arm, "gain", "low", "high"]).set_index(arm)


def by_subject(values: pd.Series) -> list[np.ndarray]:
    """Values by unit, one array for each subject, the first level of the index."""
    return [group.to_numpy(np.float64) for _, group in values.groupby(level=0, sort=True)]
