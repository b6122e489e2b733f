"""Repeated confidence intervals of a mean, which hold at every look of a study that may stop early.

An interval of Jennison and Turnbull (J. R. Stat. Soc. B 51, 1989). Each of its ends is the farther
one of two: Student's t at the normal boundary's tail probability (the significance-level approach
of Jennison and Turnbull, "Group Sequential Methods", 2000, section 4.4), and the same with Hall's
correction for skewness (J. R. Stat. Soc. B 54, 1992).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from recast_probe.diagnostics.intervals import FEWEST_EQUAL, ROUNDING, SINGLE
from recast_probe.studies.gate.group_sequential import boundaries

FEWEST = 8  # fewest subjects that show how skewed they are
TOO_FEW = f"fewer than {FEWEST} subjects do not show how skewed their margins are"
EQUAL = f"fewer than {FEWEST_EQUAL} equal margins show no spread"


def repeated_interval(
    values: np.ndarray, boundary: float, failed: float | None = None
) -> tuple[float, float, str]:
    """The repeated confidence interval of a mean at a look.

    Args:
        values: (subject,).
        boundary: of the standard normal statistic at this look.
        failed: the value of one subject more, with which the lower end must hold too.

    Returns:
        Low and high, infinite where there is no such end; and why, where there is no interval.

    Examples:
        >>> [round(each, 2) for each in repeated_interval(np.arange(9.0), 1.96)[:2]]
        [1.89, 6.11]
    """
    count, mean = len(values), float(values.mean())
    spread = float(values.std(ddof=1)) if count > 1 else 0.0
    equal = spread <= ROUNDING * float(np.abs(values).max())
    reason = SINGLE if count < 2 else TOO_FEW if count < FEWEST else ""
    reason = reason or (EQUAL if equal and count < FEWEST_EQUAL else "")
    if reason or math.isinf(boundary):
        return -math.inf, math.inf, reason
    t = -float(special.stdtrit(count - 1, special.ndtr(-boundary)))
    above = below = 0.0
    if not equal:
        skew = float(((values - mean) ** 3).mean() / values.std() ** 3)
        each = t / math.sqrt(count)
        # in standard deviations, how far the mean may lie above and below the true one
        above = max(each, _hall(each, skew, count))
        below = max(each, _hall(each, -skew, count))
    low, high = mean - spread * above, mean + spread * below
    if failed is not None:
        low = min(low, low_with_failure(mean, spread, count, t, failed))
    return low, high, ""


def low_with_failure(mean: float, spread: float, count: int, t: float, failed: float) -> float:
    """The lower end by Student's t with one value more.

    Args:
        mean, spread, count: of the values: their mean, standard deviation and number.
        t: how many standard errors the end lies below the mean.
        failed: the value more.

    Examples:
        >>> round(low_with_failure(0.1, 0.05, 20, 2.0, failed=-0.2), 3)
        0.05
    """
    centre = (count * mean + failed) / (count + 1)
    squares = (count - 1) * spread**2 + count * (mean - centre) ** 2 + (failed - centre) ** 2
    return centre - t * math.sqrt(squares / count / (count + 1))


def repeated_p_value(values: np.ndarray, looks: Sequence[int], look: int) -> float:
    """Two-sided p-value of a mean of 0, which holds although the study might have stopped earlier.

    It is twice the smallest one-sided error rate at which the repeated interval of this look would
    leave out 0 (Jennison and Turnbull 2000, section 9.4).

    Args:
        values: (subject,) up to this look.
        looks: all that were planned.
        look: the number of this one, from 1.

    Returns:
        NaN where the spread cannot be told.

    Examples:
        >>> values = np.linspace(-1, 2, 16)
        >>> one, last = (repeated_p_value(values, looks, 1) for looks in ([16, 32], [16]))
        >>> round(one, 3), round(last, 3)
        (0.233, 0.053)
    """
    fractions = tuple(each / looks[-1] for each in looks)
    values = values if values.mean() >= 0 else -values

    def left_out(alpha: float) -> bool:
        # without the cache: these levels are not asked for again
        found = boundaries.__wrapped__(fractions[:look], alpha)
        return repeated_interval(values, found[-1])[0] > 0

    if repeated_interval(values, 1.0)[2]:
        return math.nan
    if not left_out(0.5):
        return 1.0
    # on a logarithmic scale, to a thousandth of the value
    low, high = math.log(1e-9), math.log(0.5)
    if left_out(math.exp(low)):
        return 2e-9
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if left_out(math.exp(middle)) else (middle, high)
    return 2 * math.exp(high)


def _hall(distance: float, skew: float, count: int) -> float:
    """The inverse of Hall's transformation, w + s w^2 / 3 + s^2 w^3 / 27 + s / (6 n)."""
    if abs(skew) < 1e-6:
        return distance
    return 3 / skew * (float(np.cbrt(1 + skew * (distance - skew / (6 * count)))) - 1)
