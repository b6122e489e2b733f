"""How a measured quantity decides a claim: by its interval, and a difference by its p-value too."""

from __future__ import annotations

from recast_probe.paper_claims.quantity import Quantity
from recast_probe.paper_claims.verdict import (
    FAILS,
    HOLDS,
    UNDECIDED,
    UNMEASURED,
    Measured,
)

LEVEL = 0.05  # of the corrected p-values

Judged = tuple[str, str]  # a verdict, and the test that gave it


def level(found: Measured, name: str, least: float, command: str, form: str = ".0%") -> Judged:
    """Is a quantity at least so large? The whole interval must be above, or below.

    A plain number is judged by itself, and the test says so.
    """
    value, asked = found.get(name), f"{least:{form}}"
    if value is None:
        return unmeasured(command)
    if value.alone:
        verdict = HOLDS if value.mean >= least else FAILS
        return verdict, f"the mean alone against {asked}: no interval was given"
    if value.low is None:
        return UNDECIDED, f"{asked} was asked for, and it has no interval"
    return _by_interval(value, least), f"its interval against {asked}"


def difference(found: Measured, name: str, command: str) -> Judged:
    """Is a difference above 0? Both its corrected p-value and its interval must say so."""
    value = found.get(name)
    if value is None:
        return unmeasured(command)
    p = found.p_holm.get(name)
    if p is None or value.low is None:
        lack = "p-value" if p is None else "interval"
        return UNDECIDED, f"the difference has no {lack}"
    test = f"sign flips, p {_p(value.p_value)}, by Holm over {len(found.p_holm)} {_p(p)}"
    verdict = _by_interval(value, 0.0)
    if verdict == UNDECIDED:
        return UNDECIDED, f"{test}; the interval holds 0"
    return (verdict if p <= LEVEL else UNDECIDED), test


def small_loss(found: Measured, name: str, most: float, command: str) -> Judged:
    """Is a loss smaller than `most`? The whole interval must be above -most, or below."""
    value = found.get(name)
    if value is None:
        return unmeasured(command)
    if value.low is None:
        return UNDECIDED, f"a loss below {most} was asked for, and the difference has no interval"
    return _by_interval(value, -most), f"all of its interval against a loss of {most}"


def all_of(*judged: Judged) -> Judged:
    """A claim that says several things: it fails with one of them, and holds with all."""
    verdicts = [verdict for verdict, _ in judged]
    order = (FAILS, UNMEASURED, UNDECIDED, HOLDS)
    return next(each for each in order if each in verdicts), _tests(judged)


def either_way(*judged: Judged) -> Judged:
    """A claim with several readings: decided where those that are measured agree."""
    known = [each for each in judged if each[0] != UNMEASURED] or list(judged[:1])
    verdicts = {verdict for verdict, _ in known}
    if len(verdicts) == 1:
        return known[0][0], _tests(known)
    return UNDECIDED, f"{_tests(known)}; the readings do not agree"


def unmeasured(command: str) -> Judged:
    """Nothing was given, and what would give it."""
    return UNMEASURED, f"recast-probe study {command} measures it; give its summary with --measured"


def _by_interval(value: Quantity, least: float) -> str:
    if value.low is None or value.high is None:
        return UNDECIDED
    if value.low > least:
        return HOLDS
    return FAILS if value.high < least else UNDECIDED


def _tests(judged: tuple[Judged, ...] | list[Judged]) -> str:
    return "; ".join(dict.fromkeys(test for _, test in judged))


def _p(value: float | None) -> str:
    assert value is not None
    return "< 0.001" if value < 0.001 else f"{value:.2g}"
