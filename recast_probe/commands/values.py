"""Numbers on the command line: plain decimal ones, within what can be meant."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from recast_probe.errors import RecastProbeError

MOST_STEPS = 1000
"""No schedule of these models has more: they were trained on that many noise levels."""
WHOLE, NUMBER = "INTEGER", "FLOAT"


class OptionError(RecastProbeError):
    """The value of an option cannot be used.

    It is no ValueError, as the command line's parser would tell of those in words of its own.
    """


def whole(
    name: str, least: int = 0, most: int = 2**63 - 1
) -> Callable[[str | int | None], int | None]:
    """A reader of whole numbers in plain digits, for an option of this name.

    It raises OptionError for any other text ("1_000", "+5", other alphabets' digits) and for
    numbers outside of the range.
    """

    def read(text: str | int | None) -> int | None:
        if text is None or isinstance(text, int):
            return text
        if not re.fullmatch(r"-?[0-9]{1,19}", text.strip()):
            raise OptionError(
                f"{name} takes a whole number in plain digits, such as {max(least, 28)}, not "
                f"{_short(text)}."
            )
        number = int(text)
        if not least <= number <= most:
            raise OptionError(f"{name} must lie from {least} to {most:,}, not {number}.")
        return number

    return read


def decimal(
    name: str, least: float = -math.inf, above: bool = False
) -> Callable[[str | float | None], float | None]:
    """A reader of finite decimal numbers, for an option of this name.

    It raises OptionError for any other text, for nan and inf, and for numbers below `least` (or
    equal to it, where they must be above).
    """

    def read(text: str | float | None) -> float | None:
        if text is None or isinstance(text, int | float):
            return text
        if not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text.strip()):
            raise OptionError(f"{name} takes a decimal number, such as 1.5, not {_short(text)}.")
        value = float(text)
        if not math.isfinite(value) or value < least or (above and value == least):
            limit = "" if least == -math.inf else f" {'above' if above else 'from'} {least:g}"
            raise OptionError(f"{name} must be a finite number{limit}, not {_short(text)}.")
        return value

    return read


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
