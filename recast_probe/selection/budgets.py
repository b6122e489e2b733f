"""How many reference tokens stay in each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

import numpy as np

from recast_probe._utils.checks import share_of
from recast_probe.errors import InputError

PAPER_TOKENS, PAPER_MINIMUM, PAPER_MAXIMUM = 4096, 256, 1024


class Budget(Protocol):
    """Anything that says how many reference tokens stay in a step.

    Examples:
        >>> Fixed(64).tokens_at(step=0, steps=28)
        64
    """

    def tokens_at(self, step: int, steps: int, sigmas: Sequence[float] | None = None) -> int:
        """Tokens that stay in step index `step` of `steps`."""
        ...


class StepBudget:
    """What every budget can tell about a whole run."""

    def tokens_at(self, step: int, steps: int, sigmas: Sequence[float] | None = None) -> int:
        raise NotImplementedError

    def schedule(self, steps: int, sigmas: Sequence[float] | None = None) -> np.ndarray:
        """Tokens in every step, int64 (steps,)."""
        return np.array([self.tokens_at(step, steps, sigmas) for step in range(steps)], np.int64)

    def mean(self, steps: int, sigmas: Sequence[float] | None = None) -> float:
        """Tokens on average over the steps."""
        return float(self.schedule(steps, sigmas).mean())


@dataclass(frozen=True)
class Fixed(StepBudget):
    """The same number of tokens in every step.

    Raises:
        InputError: fewer than 1 token.

    Examples:
        >>> Fixed(64).schedule(3)
        array([64, 64, 64])
    """

    tokens: int

    def __post_init__(self) -> None:
        _at_least_one("tokens", self.tokens)
        # numpy's integers cannot be written as JSON
        object.__setattr__(self, "tokens", int(self.tokens))

    def tokens_at(self, step: int, steps: int, sigmas: Sequence[float] | None = None) -> int:
        """`tokens`, whatever the step."""
        _check_step(step, steps)
        return self.tokens


@dataclass(frozen=True)
class Adaptive(StepBudget):
    """Eq. 4: N(t) = minimum + (maximum - minimum) * (1 - t / T) ** gamma; few tokens at first.

    Args:
        minimum, maximum: tokens at the highest and at the lowest noise. The last step that a model
            is evaluated at has some noise left, so the "sigma" clock ends below the maximum.
        gamma: exponent; 2 in the paper.
        clock: what t / T is. "step": 1 - i / (n - 1) for step index i of n, the default.
            "sigma": the scheduler's sigma relative to the first step's.

    Raises:
        InputError: minimum below 1, maximum below minimum, gamma not above 0, unknown clock.

    Examples:
        >>> Adaptive(16, 64).schedule(5)
        array([16, 19, 28, 43, 64])
    """

    minimum: int
    maximum: int
    gamma: float = 2.0
    clock: Literal["step", "sigma"] = "step"

    def __post_init__(self) -> None:
        _at_least_one("minimum", self.minimum)
        _at_least_one("maximum", self.maximum)
        if self.maximum < self.minimum:
            raise InputError(
                f"The maximum budget {self.maximum} is below the minimum {self.minimum}."
            )
        object.__setattr__(self, "minimum", int(self.minimum))
        object.__setattr__(self, "maximum", int(self.maximum))
        if not (self.gamma > 0 and math.isfinite(self.gamma)):
            raise InputError(f"gamma must be a number above 0, got {self.gamma}.")
        if self.clock not in ("step", "sigma"):
            raise InputError(f'clock is "step" or "sigma", not {self.clock!r}.')

    @classmethod
    def paper(cls, tokens: int, clock: Literal["step", "sigma"] = "step") -> Adaptive:
        """The paper's 256 to 1,024 of 4,096 with gamma 2, scaled to `tokens` reference tokens,
        rounded half up.

        Raises:
            InputError: fewer than 1 token.

        Examples:
            >>> Adaptive.paper(4096)
            Adaptive(minimum=256, maximum=1024, gamma=2.0, clock='step')
        """
        _at_least_one("tokens", tokens)
        minimum = share_of(tokens, Fraction(PAPER_MINIMUM, PAPER_TOKENS))
        maximum = share_of(tokens, Fraction(PAPER_MAXIMUM, PAPER_TOKENS))
        return cls(minimum, maximum, gamma=2.0, clock=clock)

    def tokens_at(self, step: int, steps: int, sigmas: Sequence[float] | None = None) -> int:
        """Eq. 4 at that step, rounded half up."""
        _check_step(step, steps)
        span = self.maximum - self.minimum
        share = (1 - self._time(step, steps, sigmas)) ** self.gamma
        return self.minimum + math.floor(span * share + 0.5)

    def _time(self, step: int, steps: int, sigmas: Sequence[float] | None) -> float:
        if self.clock == "step":
            return 1 - step / (steps - 1) if steps > 1 else 1.0
        if sigmas is None or len(sigmas) < steps:
            raise InputError('The "sigma" clock needs the sigma of every step.')
        return min(max(float(sigmas[step]) / float(sigmas[0]), 0.0), 1.0)


@dataclass(frozen=True)
class Aligned(StepBudget):
    """Another budget, rounded up to multiples, so that a compiled model sees few token counts.

    Attributes:
        budget: the other budget.
        multiple: 64 or 128 suits GPU kernels.
        most: never more than this; the reference tokens of the run.

    Raises:
        InputError: a multiple or a maximum below 1, or something that is not a budget.

    Examples:
        >>> Aligned(Adaptive(16, 64), multiple=16, most=64).schedule(5)
        array([16, 32, 32, 48, 64])
    """

    budget: Budget
    multiple: int
    most: int

    def __post_init__(self) -> None:
        _at_least_one("multiple", self.multiple)
        _at_least_one("most", self.most)
        if not hasattr(self.budget, "tokens_at"):
            raise InputError(f"{self.budget!r} is no budget that can be aligned.")

    def tokens_at(self, step: int, steps: int, sigmas: Sequence[float] | None = None) -> int:
        """The budget's number, rounded up, but not above `most`.

        Raises:
            InputError: the budget itself is above `most`.
        """
        tokens = self.budget.tokens_at(step, steps, sigmas)
        if tokens > self.most:
            raise InputError(
                f"{self.budget!r} keeps {tokens} tokens in step {step}, but there are {self.most}."
            )
        return min(-(-tokens // self.multiple) * self.multiple, self.most)


def _at_least_one(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"A budget's {name} must be a whole number of at least 1, got {value!r}.")


def _check_step(step: int, steps: int) -> None:
    if not 0 <= step < steps:
        raise InputError(f"Step {step} is outside the run's steps 0 to {steps - 1}.")
