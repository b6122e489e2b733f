"""Does a method lose less than a limit? A sequential test of non-inferiority on paired scores.

The margin of a subject is what the method keeps above the limit: method - full + limit, or method -
(1 - limit) full for a limit that is a share of the full run's mean. The method passes where the
mean margin is above 0, fails where it is below 0, each with an error rate of at most alpha over all
looks (`group_sequential`).

At a look the margin's repeated confidence interval (`repeated_intervals`) is held against 0. The
lower end, on which "passes" rests, must also hold with one subject more on which the method fails
wholly: few subjects need not show rare failures, and no statistic of what was seen can make up for
that. docs/gate.md has how often verdicts are wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import optimize, special

from recast_probe.diagnostics.intervals import ROUNDING
from recast_probe.errors import InputError
from recast_probe.studies.gate.group_sequential import boundaries, checked_looks, spent
from recast_probe.studies.gate.loss_limit import Limit
from recast_probe.studies.gate.repeated_intervals import FEWEST, low_with_failure, repeated_interval

Verdict = Literal["passes", "fails", "cannot tell"]

ALPHA = 0.05
POWER = 0.8
MOST_NEEDED = 100_000


@dataclass(frozen=True)
class NonInferiority:
    """The verdict of one test.

    Attributes:
        verdict: "passes": less than the limit is lost; "fails": more; or "cannot tell".
        limit: how much may be lost.
        loss: mean of full minus method; a fraction of the full run's mean for a relative limit.
        low, high: the repeated confidence interval of the loss, NaN or infinite where there is no
            such end. "passes" is the same as high < limit, "fails" as low > limit.
        full, method: mean scores.
        worst: the largest loss of a subject, in the metric's unit.
        failure: the loss that one subject more was taken to have, in the metric's unit, or None.
        subjects: that the verdict rests on.
        planned: subjects at the last look.
        look: the number of this look, from 1; `looks` has all of them.
        alpha: one-sided error rate of each of the two verdicts over all looks.
        spent: what of it has been spent at this look.
        needed: subjects that a study needs to decide with 80 % power, if loss and spread are as
            estimated; None where decided, or where no number up to 100,000 is enough.
        reason: why it cannot be told where it is not for lack of difference; empty otherwise.
    """

    verdict: Verdict
    limit: Limit
    loss: float
    low: float
    high: float
    full: float
    method: float
    worst: float
    failure: float | None
    subjects: int
    planned: int
    look: int
    looks: tuple[int, ...]
    alpha: float
    spent: float
    needed: int | None = None
    reason: str = ""

    @property
    def confidence(self) -> float:
        """Of the interval of the loss, two-sided: 1 - 2 alpha."""
        return 1 - 2 * self.alpha

    @property
    def final(self) -> bool:
        """No later look can change the verdict."""
        return self.verdict != "cannot tell" or self.look == len(self.looks)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and words."""
        return asdict(self) | {"final": self.final, "confidence": self.confidence}


def non_inferiority(
    full: Sequence[float] | np.ndarray,
    method: Sequence[float] | np.ndarray,
    limit: str | float | Limit,
    looks: Sequence[int] | None = None,
    *,
    failure: float | Sequence[float] | np.ndarray | None,
    alpha: float = ALPHA,
) -> NonInferiority:
    """Look at paired scores at each of the planned numbers of subjects, until it is decided.

    Args:
        full, method: (subject,) scores, higher is better, in the order in which the subjects were
            run; that order must not follow from the scores.
        limit: such as 0.03, "0.03", "8%" or a `Limit`.
        looks: numbers of subjects at which to look, fixed before the first was run; one look at
            all of them by default. There may be fewer scores than the last look asks for.
        failure: what a subject loses on which the method fails wholly; or (subject,) what each
            loses without the reference, whose mean up to the look counts. Where a subject lost
            more, that counts. None allows for no failures but those that were seen.
        alpha: one-sided error rate of "passes", and of "fails", over all looks.

    Returns:
        The verdict of the first look that decides, or of the last that could be taken. Scores of
        subjects after it count for nothing.

    Raises:
        InputError: scores that are not finite or not paired, too few for the first look, a failure
            that is no such number, or a relative limit where the full run's mean is not above 0.

    Examples:
        >>> full = np.linspace(0.7, 0.9, 40)
        >>> method = full - 0.01 + 0.01 * np.sin(range(40))
        >>> found = non_inferiority(full, method, 0.03, failure=0.3)
        >>> found.verdict, round(found.loss, 3), round(found.high, 3)
        ('passes', 0.01, 0.029)
    """
    limit = Limit.parse(limit)
    pair = _checked(full, method)
    looks = checked_looks((pair.shape[1],) if looks is None else looks)
    if pair.shape[1] < looks[0]:
        raise InputError(
            f"The first look is at {looks[0]} subjects, and there are scores of {pair.shape[1]}."
        )
    failures = None if failure is None else np.asarray(failure, np.float64)
    if failures is not None and not (
        failures.shape in ((), pair.shape[1:]) and np.isfinite(failures).all()
    ):
        raise InputError("failure is a finite loss, or one of each subject.")
    fractions = tuple(each / looks[-1] for each in looks)
    limits = boundaries(fractions, alpha)
    taken = [each for each in looks if each <= pair.shape[1]]
    for number, count in enumerate(taken):
        now, boundary = pair[:, :count], limits[number]
        means = now.mean(1)
        if limit.relative and not means[0] > 0:
            raise InputError(
                f"The full run's mean is {means[0]:.4g}, so a share of it is no limit; give one in "
                "the metric's own unit."
            )
        worst = float((now[0] - now[1]).max())
        lost = None
        if failures is not None:
            lost = max(float(failures.ravel()[:count].mean()), worst)
        margins, failed = _margins(now, limit, lost)
        low, high, reason = repeated_interval(margins, boundary, failed)
        verdict: Verdict = "passes" if low > 0 else "fails" if high < 0 else "cannot tell"
        if verdict != "cannot tell":
            break
    loss, ends = _loss(now, limit, boundary, lost)
    needed = None
    if verdict == "cannot tell":
        needed = _needed(margins, failed, looks, limits, number)
    return NonInferiority(
        verdict=verdict,
        limit=limit,
        loss=loss,
        low=ends[0],
        high=ends[1],
        full=float(means[0]),
        method=float(means[1]),
        worst=worst,
        failure=lost,
        subjects=count,
        planned=looks[-1],
        look=number + 1,
        looks=looks,
        alpha=alpha,
        spent=float(spent(fractions[number], alpha)),
        needed=needed,
        reason=reason,
    )


def _checked(full: Any, method: Any) -> np.ndarray:
    try:
        pair = np.array([full, method], np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"Scores are numbers, one of each run a subject: {error}.") from error
    if pair.ndim != 2 or not pair.shape[1] or not np.isfinite(pair).all():
        raise InputError("Scores are finite numbers (subject,), one of each run a subject.")
    return pair


def _margins(pair: np.ndarray, limit: Limit, lost: float | None) -> tuple[np.ndarray, float | None]:
    """The margins, and that of a usual subject that loses so much."""
    if lost is None:
        return limit.margins(*pair), None
    usual = pair[0].mean()
    every = limit.margins(np.append(pair[0], usual), np.append(pair[1], usual - lost))
    return every[:-1], float(every[-1])


def _loss(
    pair: np.ndarray, limit: Limit, boundary: float, lost: float | None
) -> tuple[float, tuple[float, float]]:
    """The loss with its interval: the limits that would not be decided, as Fieller has it."""
    full, method = pair
    unit = full.mean() if limit.relative else 1.0
    loss = float((full - method).mean() / unit)

    def ends(share: float) -> tuple[float, float]:
        margins = method - full + share * (full if limit.relative else 1.0)
        failed = None if lost is None else share * unit - lost
        return repeated_interval(margins, boundary, failed)[:2]

    if not limit.relative:
        low, high = ends(0.0)
        return loss, (-high, -low)
    return loss, (-_root(lambda x: -ends(-x)[1], -loss), _root(lambda x: ends(x)[0], loss))


def _root(function: Callable[[float], float], start: float) -> float:
    """The first place above `start` where a function that is below 0 there is not; or infinity."""
    if not function(start) < 0:
        return start
    for power in range(-12, 12):
        stop = start + 2.0**power
        if function(stop) >= 0:
            return float(optimize.brentq(function, start, stop, xtol=1e-12))
    return math.inf


def _needed(
    margins: np.ndarray,
    failed: float | None,
    looks: Sequence[int],
    limits: Sequence[float],
    number: int,
) -> int | None:
    """Subjects with which the power is 80 %, if mean and spread of the margins are the true ones.

    A planned look that is enough, or the size of a new study with as many looks.
    """
    count, mean = len(margins), float(margins.mean())
    spread = float(margins.std(ddof=1)) if count > 1 else math.inf
    if count < 2 or not abs(mean) > ROUNDING * spread:
        return None
    power = float(special.ndtri(POWER))

    def decides(size: int, boundary: float) -> bool:
        less = abs(mean) - power * spread / math.sqrt(size)
        low = less - boundary * spread / math.sqrt(size)
        if failed is not None and mean > 0:
            low = min(low, low_with_failure(less, spread, size, boundary, failed))
        return low > 0

    for size, boundary in list(zip(looks, limits, strict=True))[number + 1 :]:
        if decides(size, boundary):
            return size
    low, high = count, MOST_NEEDED + 1
    if not decides(MOST_NEEDED, limits[-1]):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle, limits[-1]) else (middle, high)
    return max(high, FEWEST)
