"""Comparisons of arms on tidy tables: one row a run, paired by subject and prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from recast_probe.diagnostics.intervals import ROUNDING
from recast_probe.errors import InputError
from recast_probe.studies.limits import Limits, limits_of
from recast_probe.studies.resampling import (
    bootstrap,
    bootstrap_ratio,
    difference_interval,
    sign_flip_p_value,
)

UNITS = ("subject", "prompt")


def means(
    table: pd.DataFrame,
    value: str,
    *,
    arm: str = "arm",
    units: Sequence[str] = UNITS,
    confidence: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
    within: Limits | Literal["known"] | None = "known",
) -> pd.DataFrame:
    """Mean of every arm with its interval over subjects, by `mean_interval`.

    Args:
        table: one row a run, with the columns `arm`, `value` and `units`.
        units: what makes a pair; the first is the subject, the independent unit.
        within: the least and largest possible value, or None for no limits; "known" for those that
            `limits_of` has for the column.

    Returns:
        By arm, in the order of the table: mean, low, high (NaN where they cannot be told),
        subjects, runs, method.

    Raises:
        InputError: a missing column, a run that is missing or there twice, values not finite.

    Examples:
        >>> names = ["subject", "prompt", "arm", "score"]
        >>> rows = [("fox", "snow", "full", 0.8), ("hen", "snow", "full", 0.6)]
        >>> found = means(pd.DataFrame(rows, columns=names), "score")
        >>> found["mean"].round(3).to_dict(), found["subjects"].to_list()
        ({'full': 0.7}, [2])
    """
    wide = paired(table, value, arm, units)
    rows = []
    for name in wide.columns:
        found = bootstrap(
            by_subject(wide[name]),
            within=limits_of(value) if within == "known" else within,
            confidence=confidence,
            draws=draws,
            seed=seed,
        )
        rows.append(
            {
                arm: name,
                "mean": found.mean,
                "low": found.low,
                "high": found.high,
                "subjects": found.count,
                "runs": len(wide),
                "method": found.method,
            }
        )
    return pd.DataFrame(rows).set_index(arm)


def compare(
    table: pd.DataFrame,
    value: str,
    baseline: str,
    *,
    arm: str = "arm",
    units: Sequence[str] = UNITS,
    confidence: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
    within: Limits | Literal["known"] | None = "known",
) -> pd.DataFrame:
    """Every other arm against a baseline, pair by pair.

    Returns:
        By arm: difference (arm minus baseline) with low and high by `difference_interval`, p_value
        (`sign_flip_p_value` of whole subjects: differences symmetric about 0 without an effect,
        two-sided), p_holm (over the arms of this table), effect_size (mean over standard
        deviation of the subjects' mean differences), share_above (of the pairs; ties count half),
        subjects, pairs, method.

    Raises:
        InputError: as `means`; an unknown baseline; nothing to compare it with.

    Examples:
        >>> names = ["subject", "prompt", "arm", "score"]
        >>> rows = [("fox", "snow", "full", 0.8), ("fox", "snow", "half", 0.5)]
        >>> rows += [("hen", "snow", "full", 0.6), ("hen", "snow", "half", 0.4)]
        >>> found = compare(pd.DataFrame(rows, columns=names), "score", "full")
        >>> found.difference.round(3).to_dict(), found.share_above.to_list()
        ({'half': -0.25}, [0.0])
    """
    wide = paired(table, value, arm, units)
    if baseline not in wide.columns or len(wide.columns) < 2:
        raise InputError(
            f"{baseline!r} cannot be compared with others: the arms are {', '.join(wide.columns)}."
        )
    rows = []
    for name in wide.columns.drop(baseline):
        difference = wide[name] - wide[baseline]
        groups = by_subject(difference)
        found = difference_interval(
            groups,
            within=limits_of(value) if within == "known" else within,
            confidence=confidence,
            draws=draws,
            seed=seed,
        )
        subject_means = np.array([group.mean() for group in groups])
        spread = subject_means.std(ddof=1) if len(groups) > 1 else 0.0
        spread = 0.0 if spread <= ROUNDING * np.abs(subject_means).max() else spread
        rows.append(
            {
                arm: name,
                "difference": found.mean,
                "low": found.low,
                "high": found.high,
                "p_value": sign_flip_p_value(groups, seed=seed),
                "effect_size": subject_means.mean() / spread if spread else np.nan,
                "share_above": ((difference > 0) + 0.5 * (difference == 0)).mean(),
                "subjects": len(groups),
                "pairs": len(difference),
                "method": found.method,
            }
        )
    result = pd.DataFrame(rows).set_index(arm)
    result.insert(4, "p_holm", holm(result["p_value"].to_numpy()))
    return result


def retention(
    table: pd.DataFrame,
    value: str,
    full: str = "full",
    *,
    arm: str = "arm",
    units: Sequence[str] = UNITS,
    confidence: float = 0.95,
    draws: int = 5000,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean of every arm over the mean of the full run, paired (the paper's "97.3 %").

    Returns:
        By arm: retention with low and high by `ratio_interval`, as fractions, subjects, method.

    Raises:
        InputError: as `means`; an unknown full arm, or one with a mean of zero.

    Examples:
        >>> names = ["subject", "prompt", "arm", "score"]
        >>> rows = [("fox", "snow", "full", 0.8), ("fox", "snow", "half", 0.4)]
        >>> rows += [("hen", "snow", "full", 0.6), ("hen", "snow", "half", 0.3)]
        >>> retention(pd.DataFrame(rows, columns=names), "score").retention.to_dict()
        {'half': 0.5}
    """
    wide = paired(table, value, arm, units)
    if full not in wide.columns:
        raise InputError(f"There is no arm {full!r}; there is {', '.join(wide.columns)}.")
    base, rows = by_subject(wide[full]), []
    for name in wide.columns.drop(full):
        found = bootstrap_ratio(
            by_subject(wide[name]), base, confidence=confidence, draws=draws, seed=seed
        )
        rows.append(
            {
                arm: name,
                "retention": found.mean,
                "low": found.low,
                "high": found.high,
                "subjects": found.count,
                "method": found.method,
            }
        )
    return pd.DataFrame(rows).set_index(arm)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down correction; NaN stays NaN and is not counted.

    The adjusted values may be held against any level: they control the chance of a single false
    claim in the whole table.

    Args:
        p_values: (test,), between 0 and 1.

    Returns:
        Adjusted values (test,), at most 1.

    Examples:
        >>> holm([0.01, 0.04, np.nan])
        array([0.02, 0.04,  nan])
    """
    values = np.asarray(p_values, np.float64)
    adjusted = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * factors))
    return adjusted


def paired(table: pd.DataFrame, value: str, arm: str, units: Sequence[str]) -> pd.DataFrame:
    """Values (unit, arm), every unit with every arm.

    Raises:
        InputError: a missing column, rows without a name, runs that are missing or there twice
            (named), no rows.
    """
    wanted = [*units, arm, value]
    missing = [name for name in wanted if name not in table.columns]
    if missing or table.empty:
        raise InputError(
            f"The table lacks {', '.join(missing) or 'rows'}; it has {', '.join(table.columns)}."
        )
    # pandas leaves rows without a name out of its groups, and says nothing
    nameless = table[[*units, arm]].isna()
    if nameless.any(axis=None):
        counts = ", ".join(f"{n} of {name}" for name, n in nameless.sum().items() if n)
        raise InputError(f"Rows without a name cannot be paired: {counts} are missing.")
    twice = table.duplicated([*units, arm])
    if twice.any():
        raise InputError(f"Runs are there twice, such as {_named(table[twice], units, arm)}.")
    order = list(dict.fromkeys(table[arm]))
    wide = table.pivot(index=list(units), columns=arm, values=value)[order]
    if wide.isna().any(axis=None):
        gaps = wide.isna().stack()
        unit = gaps[gaps].index[0]
        raise InputError(
            f"{int(wide.isna().to_numpy().sum())} runs are missing or have no {value}, such as "
            f"{dict(zip([*units, arm], unit, strict=True))}. Pairs need every arm."
        )
    return wide


def by_subject(values: pd.Series) -> list[np.ndarray]:
    """Values by unit, one array for each subject, the first level of the index."""
    return [group.to_numpy(np.float64) for _, group in values.groupby(level=0, sort=True)]


def _named(rows: pd.DataFrame, units: Sequence[str], arm: str) -> dict[str, Any]:
    return rows.iloc[0][[*units, arm]].to_dict()
