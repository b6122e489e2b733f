"""Boundaries of a test that looks at its data several times and keeps its error rate.

Lan and DeMets, "Discrete sequential boundaries for clinical trials", Biometrika 70 (1983): the
error rate alpha is spent over the looks by a function of the share of the data that is there. The
boundaries follow one after another by the recursive numerical integration of Armitage, McPherson
and Rowe (J. R. Stat. Soc. A 132, 1969), as in chapter 19 of Jennison and Turnbull, "Group
Sequential Methods with Applications to Clinical Trials" (2000). Spending is exact where a union
bound over the looks would give away power: at five looks and 5 % Bonferroni's last boundary is
2.33, and this one 1.69.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from scipy import optimize, special

from recast_probe._utils.checks import check_finite, check_int
from recast_probe.errors import InputError

# the integral between two looks is of pieces so many standard deviations of the shorter step long,
# each with so many points: boundaries hold to 10 digits with half of the length, or of the points
PIECE, POINTS = 6.0, 32
MOST_POINTS = 4_000
# standard deviations beyond which nothing is integrated
FAR = 9.0
MOST_LOOKS = 200


def spent(fraction: float | np.ndarray, alpha: float) -> np.ndarray:
    """What of a one-sided error rate is spent when this fraction of the data is there.

    The function of Lan and DeMets that gives boundaries like those of O'Brien and Fleming: hardly
    anything at first, and nearly all of it at the end.

    Args:
        fraction: 0 < fraction <= 1, any shape.
        alpha: the whole one-sided error rate.

    Returns:
        2 (1 - Phi(z / sqrt(fraction))), z the normal quantile of 1 - alpha / 2; same shape.

    Examples:
        >>> spent(np.array([0.2, 0.6, 1.0]), 0.05).round(5)
        array([1.00e-05, 1.14e-02, 5.00e-02])
    """
    quantile = special.ndtri(alpha / 2)
    return 2 * special.ndtr(quantile / np.sqrt(fraction))


@lru_cache(maxsize=512)
def boundaries(fractions: tuple[float, ...], alpha: float = 0.05) -> tuple[float, ...]:
    """The one-sided boundary of the standard normal statistic at every look.

    Args:
        fractions: of the data that there will be at most, ascending, in (0, 1].
        alpha: one-sided error rate that is spent when all data are there.

    Returns:
        One number a look; without an effect the chance to reach any of them is `spent` of the last
        fraction. Infinite where too little is spent for a number.

    Raises:
        InputError: fractions that do not ascend within (0, 1] or lie too close to each other, or an
            alpha outside (0, 0.5].

    Examples:
        >>> [round(each, 3) for each in boundaries((0.2, 0.4, 0.6, 0.8, 1.0), alpha=0.025)]
        [4.877, 3.357, 2.68, 2.29, 2.031]
    """
    times = np.asarray(fractions, np.float64)
    if not len(times) or times[0] <= 0 or times[-1] > 1 or (np.diff(times) <= 0).any():
        raise InputError(f"Fractions of the data ascend within (0, 1], not {list(fractions)}.")
    wanted = np.diff(spent(times, check_alpha(alpha)), prepend=0.0)
    steps = np.sqrt(np.diff(times, prepend=0.0))
    found: list[float] = []
    places, weights = np.zeros(1), np.ones(1)  # of the score, where it went on
    for look, (time, share, step) in enumerate(zip(times, wanted, steps, strict=True)):
        far = FAR * math.sqrt(time)
        score = _boundary(places, weights, float(step), far, float(share))
        found.append(score / math.sqrt(time))
        if look + 1 < len(times):
            finest = float(steps[look : look + 2].min())
            new, new_weights = _quadrature(-far, min(score, far), finest)
            away = (new[:, None] - places) / step
            density = np.exp(-(away**2) / 2) @ weights / (step * math.sqrt(2 * math.pi))
            places, weights = new, density * new_weights
    return tuple(found)


def _boundary(
    places: np.ndarray, weights: np.ndarray, step: float, far: float, share: float
) -> float:
    """The boundary of the score, whose variance is the time, at which so much is spent.

    Args:
        places, weights: the distribution of the score at the look before, where it went on.
        step: standard deviation of what came since.
    """

    def crossed(score: float) -> float:
        return float(weights @ special.ndtr((places - score) / step))

    if share > 0 and crossed(4 * far) < share:
        return float(optimize.brentq(lambda x: crossed(x) - share, -far, 4 * far, xtol=1e-12))
    return math.inf


def _quadrature(low: float, high: float, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of an integral over what varies within a step, Gauss-Legendre by pieces.

    Raises:
        InputError: more points than can be had.
    """
    pieces = max(1, math.ceil((high - low) / (PIECE * step)))
    if pieces * POINTS > MOST_POINTS:
        raise InputError(
            f"Two looks lie so close to each other that their boundaries cannot be computed: one "
            f"follows after {step**2:.3g} of all data. Leave one of them out."
        )
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    edges = np.linspace(low, high, pieces + 1)
    half = (high - low) / (2 * pieces)
    points = (edges[:-1, None] + half * (nodes + 1)).ravel()
    return points, np.tile(half * weights, pieces)


def check_alpha(alpha: float) -> float:
    """The one-sided error rate.

    Raises:
        InputError: it is not above 0 and at most 0.5.

    Examples:
        >>> check_alpha(0.05)
        0.05
    """
    if not 0 < (found := check_finite("alpha", alpha)) <= 0.5:
        raise InputError(f"alpha is a one-sided error rate above 0 and at most 0.5, not {alpha!r}.")
    return found


def schedule(subjects: int, looks: int = 5, first: int = 8) -> tuple[int, ...]:
    """Numbers of subjects at which to look, evenly spread; a short one has fewer looks.

    Args:
        subjects: that there will be at most.
        looks: how many looks, at most.
        first: fewest subjects between looks, and at the first.

    Raises:
        InputError: a number below 1, or more than 200 looks.

    Examples:
        >>> schedule(60), schedule(20), schedule(5)
        ((12, 24, 36, 48, 60), (10, 20), (5,))
    """
    check_int("subjects", subjects, 1)
    if check_int("looks", looks, 1) > MOST_LOOKS:
        raise InputError(f"looks is {looks}; there are at most {MOST_LOOKS}.")
    count = max(1, min(looks, subjects // check_int("first", first, 1)))
    return tuple(math.ceil(subjects * number / count) for number in range(1, count + 1))


def checked_looks(looks: Sequence[int]) -> tuple[int, ...]:
    """The looks as given.

    Raises:
        InputError: none, or numbers of subjects that do not ascend from 1 on.

    Examples:
        >>> checked_looks([8, 16])
        (8, 16)
    """
    found = tuple(check_int("looks", each, 1) for each in looks)
    if not found or len(found) > MOST_LOOKS or list(found) != sorted(set(found)):
        raise InputError(
            f"Looks are 1 to {MOST_LOOKS} ascending numbers of subjects, not {list(looks)[:9]}."
        )
    return found


def planned_looks(subjects: int, looks: int | Sequence[int]) -> tuple[int, ...]:
    """Numbers of subjects at which to look, of so many: evenly spread, or as given.

    Args:
        looks: how many, see `schedule`; or at which numbers of subjects.

    Raises:
        InputError: neither, or a look at more subjects than there are.

    Examples:
        >>> planned_looks(20, 5), planned_looks(20, [8, 16])
        ((10, 20), (8, 16))
    """
    if isinstance(looks, str) or not isinstance(looks, Iterable):
        return schedule(subjects, looks)
    found = checked_looks(list(looks))
    if found[-1] > subjects:
        raise InputError(f"The last look is at {found[-1]} subjects; there are {subjects}.")
    return found
