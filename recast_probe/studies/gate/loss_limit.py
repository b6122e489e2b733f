"""How much of a score may be lost: a number, or a share of the full run's mean."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from recast_probe.errors import InputError


@dataclass(frozen=True)
class Limit:
    """How much may be lost.

    Attributes:
        value: above 0: in the metric's own unit, or as a fraction of the full run's mean.
        relative: it is such a fraction.

    Raises:
        InputError: a value that is not above 0, or a fraction that is not below 1.

    Examples:
        >>> str(Limit(0.08, relative=True)), str(Limit(0.03))
        ('8 % of the full run', '0.03')
    """

    value: float
    relative: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.value < (1 if self.relative else math.inf):
            raise InputError(
                "A limit is a loss above 0, such as 0.03 of the metric, or a share of the full "
                f"run's mean between 0 and 100 %, such as 8%; got {self}."
            )

    @classmethod
    def parse(cls, text: str | float | Limit) -> Limit:
        """A limit from "0.03" or "8%".

        Raises:
            InputError: another text, or a value out of range.

        Examples:
            >>> Limit.parse("8%")
            Limit(value=0.08, relative=True)
        """
        if isinstance(text, Limit):
            return text
        match = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*(%?)\s*", str(text))
        if not match:
            raise InputError(
                f"A limit is a number such as 0.03, or a percentage such as 8%, not {text!r}."
            )
        share = match[2] == "%"
        return cls(float(match[1]) / (100 if share else 1), share)

    def margins(self, full: np.ndarray, method: np.ndarray) -> np.ndarray:
        """What the method keeps above the limit, by subject; above 0 is good.

        Examples:
            >>> Limit(0.1, relative=True).margins(np.array([1.0, 0.5]), np.array([0.9, 0.5]))
            array([0.  , 0.05])
        """
        if self.relative:
            return method - (1 - self.value) * full
        return method - full + self.value

    def __str__(self) -> str:
        return f"{100 * self.value:.6g} % of the full run" if self.relative else f"{self.value:g}"
