"""The one way to say a budget, wherever one is taken: in Python, on the command line, in plans.

==================  ==========================================================================
``64``              64 tokens in every step
``0.25``, ``"25%"``  this share of the reference tokens, rounded half up, at least one
``"eq4"``           Eq. 4 with the paper's 256 to 1,024 of 4,096, scaled to the reference
``"eq4:16:64:2"``   Eq. 4 from 16 to 64 tokens with gamma 2, which may be left out
``"eq4:sigma"``     the clock of Eq. 4, "step" or "sigma", may follow either
a budget            ``Fixed``, ``Adaptive``, ``Listed``, ... as they are
==================  ==========================================================================

A share, and Eq. 4 scaled, mean a number of tokens only where the reference is known: `of`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from recast_probe._utils.checks import share_of
from recast_probe.errors import InputError
from recast_probe.selection.budgets import Adaptive, Budget, Fixed

FORMS = '64 (tokens), 0.25 or "25%" (a share of the reference), "eq4" or "eq4:256:1024:2"'
CLOCKS = ("step", "sigma")


@dataclass(frozen=True)
class Share:
    """A share of the reference tokens in every step.

    Attributes:
        share: above 0 and up to 1.

    Raises:
        InputError: a share outside (0, 1].

    Examples:
        >>> Share(0.25).of(256)
        Fixed(tokens=64)
    """

    share: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "share", float(self.share))
        if not 0 < self.share <= 1:
            raise InputError(
                f"A share of the reference lies above 0 and up to 1, not {self.share:g}; a number "
                "of tokens is a whole number."
            )

    def of(self, tokens: int) -> Fixed:
        """The budget for a reference of so many tokens."""
        return Fixed(share_of(tokens, self.share))

    def __str__(self) -> str:
        return f"{self.share * 100:g}%"


@dataclass(frozen=True)
class PaperSchedule:
    """Eq. 4 with the paper's numbers, scaled to the reference: see `Adaptive.paper`.

    Examples:
        >>> PaperSchedule().of(256)
        Adaptive(minimum=16, maximum=64, gamma=2.0, clock='step')
    """

    clock: Literal["step", "sigma"] = "step"

    def of(self, tokens: int) -> Adaptive:
        """The budget for a reference of so many tokens."""
        return Adaptive.paper(tokens, self.clock)

    def __str__(self) -> str:
        return "eq4" if self.clock == "step" else f"eq4:{self.clock}"


def as_budget(given: Any) -> Any:
    """A budget from any of the forms above.

    Returns:
        A `Budget`, or a `Share` or `PaperSchedule`, which have one `of` a number of tokens.

    Raises:
        InputError: something else.

    Examples:
        >>> as_budget(64), as_budget("25%"), as_budget("eq4:16:64")
        (Fixed(tokens=64), Share(share=0.25), Adaptive(minimum=16, maximum=64, gamma=2.0, ...))
    """
    if isinstance(given, str):
        return _parsed(given)
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        return Fixed(int(given))
    if isinstance(given, float | np.floating):
        return Share(float(given))
    if hasattr(given, "tokens_at") or isinstance(given, Share | PaperSchedule):
        return given
    raise InputError(f"A budget is {FORMS}, or one of rp.budget, not {given!r}.")


def budget_of(given: Any, tokens: int) -> Budget:
    """The budget that is meant for a reference of so many tokens.

    Raises:
        InputError: as `as_budget`.

    Examples:
        >>> budget_of("25%", 256), budget_of("eq4", 4096).schedule(2)
        (Fixed(tokens=64), array([ 256, 1024]))
    """
    found = as_budget(given)
    return found.of(tokens) if isinstance(found, Share | PaperSchedule) else found


def _parsed(text: str) -> Any:
    said = text.strip()
    if re.fullmatch("[0-9]{1,9}", said):
        return Fixed(int(said))
    if re.fullmatch(r"([0-9]{1,9}\.[0-9]{0,12}|\.[0-9]{1,12})", said):
        return Share(float(said))
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{0,12})?\s*%", said):
        return Share(float(said.removesuffix("%")) / 100)
    name, *rest = said.lower().split(":")
    if name != "eq4":
        raise InputError(f"A budget is {FORMS}, not {text[:60]!r}.")
    clock: Any = rest.pop() if rest and rest[-1] in CLOCKS else "step"
    if not rest:
        return PaperSchedule(clock)
    whole, gamma = rest[:2], rest[2:]
    if (
        len(whole) < 2
        or len(gamma) > 1
        or not all(re.fullmatch("[0-9]{1,9}", number) for number in whole)
        or not all(re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,9})?", number) for number in gamma)
    ):
        raise InputError(
            f'{text[:60]!r} should read "eq4:MINIMUM:MAXIMUM" or "eq4:MINIMUM:MAXIMUM:GAMMA", in '
            'tokens, such as "eq4:256:1024:2".'
        )
    return Adaptive(int(whole[0]), int(whole[1]), float(gamma[0]) if gamma else 2.0, clock)
