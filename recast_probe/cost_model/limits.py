"""What entropy and concentration allow each other, and what Eq. 4 amounts to."""

from __future__ import annotations

import math
from collections.abc import Callable

from recast_probe.errors import InputError


def entropy_range(tokens: int, top: int, share: float) -> tuple[float, float]:
    """Smallest and largest entropy, bits, of a distribution whose best `top` tokens hold `share`.

    The largest is even inside both parts; the smallest keeps no token below above one of the top.

    Raises:
        InputError: a share below top / tokens or above 1, or no tokens beside the top ones.

    Examples:
        >>> least, most = entropy_range(4096, 1024, share=0.7)
        >>> round(least, 2), round(most, 2)
        (5.77, 11.36)
    """
    if not 1 <= top < tokens or not top / tokens <= share <= 1:
        raise InputError(
            f"The best {top} of {tokens} tokens hold between {top / tokens:.3f} and 1 of the mass, "
            f"not {share}."
        )
    largest = _largest_entropy(tokens, top, share)
    if share == 1:
        return 0.0, largest
    # either one peak over an even floor, or an even plateau; entropy is least in such a corner
    peaks = (_one_peak(top, share, filled) for filled in range(1, tokens - top + 1))
    return min(_plateau(top, share), *peaks), largest


def _one_peak(top: int, share: float, filled: int) -> float:
    """Entropy with the rest spread evenly over `filled` tokens, the top at that level but one."""
    level = (1 - share) / filled
    peak = share - (top - 1) * level
    if peak < level:
        return math.inf
    return _surprise(peak, 1) + _surprise(1 - peak, top - 1 + filled)


def _plateau(top: int, share: float) -> float:
    """Entropy with the top level, spread evenly, kept for as many tokens as the mass is enough."""
    level = share / top
    whole = math.floor(1 / level + 1e-9)
    return _surprise(whole * level, whole) + _surprise(max(1 - whole * level, 0.0), 1)


def largest_top_share(tokens: int, top: int, entropy: float) -> float:
    """Largest share of the mass that the best `top` tokens can hold at an entropy in bits.

    Raises:
        InputError: an entropy above log2(tokens) or below 0.

    Examples:
        >>> round(largest_top_share(4096, 1024, entropy=11.0), 3)
        0.811
    """
    if not 0 <= entropy <= math.log2(tokens):
        raise InputError(f"{tokens} tokens have 0 to {math.log2(tokens):.2f} bits, not {entropy}.")
    if entropy <= math.log2(top):
        return 1.0
    if entropy > math.log2(tokens) - 1e-9:
        return top / tokens  # within rounding of the uniform distribution
    return float(
        _root(lambda share: _largest_entropy(tokens, top, share) - entropy, top / tokens, 1.0)
    )


def _largest_entropy(tokens: int, top: int, share: float) -> float:
    return _surprise(share, top) + _surprise(1 - share, tokens - top)


def eq_4_mean(minimum: int, maximum: int, gamma: float, steps: int) -> float:
    """Mean tokens of Eq. 4 on the step clock, before they are rounded to whole tokens.

    Args:
        minimum, maximum: tokens kept in the first and in the last step.
        gamma: the exponent.
        steps: of the run, at least 2.

    Examples:
        >>> round(eq_4_mean(256, 1024, gamma=2.0, steps=28), 1)
        516.7
    """
    kept = sum((step / (steps - 1)) ** gamma for step in range(steps)) / steps
    return minimum + (maximum - minimum) * kept


def gamma_for_mean(minimum: int, maximum: int, mean: float, steps: int) -> float:
    """The exponent of Eq. 4 (step clock) that keeps `mean` tokens on average.

    Raises:
        InputError: a mean that no exponent gives.

    Examples:
        >>> round(gamma_for_mean(256, 1024, mean=600, steps=28), 2)
        1.24
    """

    def excess(log_gamma: float) -> float:
        return eq_4_mean(minimum, maximum, math.exp(log_gamma), steps) - mean

    if steps < 2 or not excess(-8) > 0 > excess(8):
        raise InputError(f"No exponent keeps {mean} of {minimum}..{maximum} tokens on average.")
    return math.exp(_root(excess, -8, 8))


def _surprise(mass: float, tokens: int) -> float:
    """Bits of `mass` spread evenly over `tokens`."""
    return -mass * math.log2(mass / tokens) if mass > 0 else 0.0


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    from scipy.optimize import brentq  # takes half a second to import, and few need it

    return float(brentq(function, low, high))
