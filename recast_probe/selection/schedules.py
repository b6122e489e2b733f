"""Budgets written out step by step, and ways to make them: in reverse, matched, by entropy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recast_probe.diagnostics import arrays
from recast_probe.errors import InputError
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.profiles.profile_input import as_profile
from recast_probe.selection.budget_language import as_budget
from recast_probe.selection.budgets import Budget, StepBudget


@dataclass(frozen=True)
class Listed(StepBudget):
    """Tokens for every step of a run, one number a step.

    Attributes:
        tokens: as many whole numbers of at least 1 as the run has steps.
        made: how they were made, for people.

    Raises:
        InputError: a number below 1, none at all, or a run of another length.

    Examples:
        >>> Listed((16, 32, 64)).mean(3)
        37.333333333333336
    """

    tokens: tuple[int, ...]
    made: str = "listed"

    def __post_init__(self) -> None:
        given = np.asarray(self.tokens)
        if given.ndim != 1 or not given.size or given.dtype.kind not in "iu" or given.min() < 1:
            raise InputError(
                "A listed budget has one whole number of at least 1 for every step, got "
                f"{self.tokens!r}."
            )
        object.__setattr__(self, "tokens", tuple(int(count) for count in given))

    def tokens_at(self, step: int, steps: int, sigmas: Sequence[float] | None = None) -> int:
        """The number listed for that step."""
        if steps != len(self.tokens):
            raise InputError(
                f"This budget lists {len(self.tokens)} steps, but the run has {steps}."
            )
        if not 0 <= step < steps:
            raise InputError(f"Step {step} is outside the run's steps 0 to {steps - 1}.")
        return self.tokens[step]


def inverted(
    budget: Budget, steps: int, sigmas: Sequence[float] | None = None, start: int = 0
) -> Listed:
    """The same numbers in reverse: many tokens at first, few later.

    The control for Eq. 4, whose entropy argument points the other way. Total token-steps and FLOP
    from `start` on are those of `budget`. Steps before `start` keep the budget's numbers.

    Raises:
        InputError: `start` outside the run.

    Examples:
        >>> inverted(rp.Adaptive(16, 64), 5).tokens
        (64, 43, 28, 19, 16)
    """
    counts = _counts(budget, steps, sigmas, start)
    return Listed((*counts[:start], *counts[start:][::-1]), f"inverted {_name(budget)}")


def flat(
    budget: Budget, steps: int, sigmas: Sequence[float] | None = None, start: int = 0
) -> Listed:
    """The same total number of token-steps from `start` on, spread evenly over the steps.

    Raises:
        InputError: `start` outside the run.

    Examples:
        >>> flat(rp.Adaptive(16, 64), 5).tokens
        (34, 34, 34, 34, 34)
    """
    counts = _counts(budget, steps, sigmas, start)
    shape = np.ones(steps - start)
    return Listed(
        (*counts[:start], *with_total(shape, sum(counts[start:]))), f"flat {_name(budget)}"
    )


def entropy_matched(
    profile: AttentionProfile,
    total: int,
    *,
    blocks: Any = "paper",
    heads: Any = None,
    start: int = 0,
) -> Listed:
    """Tokens in proportion to the effective tokens, 2 ** marginal entropy, of each step.

    What the falling entropy of Section 2.4 would suggest: many tokens where attention is spread.

    Args:
        profile: of a full run, with every step recorded.
        total: token-steps from step `start` on.
        blocks, heads: what the entropy is of; by default the paper's blocks, and all blocks of a
            model that has no single-stream ones.

    Raises:
        InputError: a step that is not recorded, or a total that does not fit.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> profile = planted([[[[1] * 16]], [[[1] * 8 + [0] * 8]]])
        >>> entropy_matched(profile, 12).tokens
        (8, 4)
    """
    profile = as_profile(profile)
    score = score_of_every_step(profile, blocks, heads)
    _check_start(start, len(score))
    effective = 2 ** arrays.entropy_bits(score[start:])
    tokens = with_total(effective, total, most=profile.layout.reference_tokens)
    return Listed((*[profile.layout.reference_tokens] * start, *tokens), "entropy-matched")


def score_of_every_step(profile: AttentionProfile, blocks: Any, heads: Any) -> np.ndarray:
    """Mean score over blocks and heads, float64 (step, token).

    Raises:
        InputError: the profile holds some steps only.
    """
    score = as_profile(profile).sel(blocks, heads=heads).score
    recorded = [int(step) for step in score["step"]]
    if recorded != list(range(len(recorded))):
        raise InputError(f"Every step must be recorded, but the profile has only {recorded}.")
    return score.mean(("block", "head"), dtype=np.float64).values


def matched(
    budget: Budget,
    total: float,
    steps: int,
    sigmas: Sequence[float] | None = None,
    *,
    start: int = 0,
    most: int | None = None,
    cost: Callable[[int], float] | None = None,
) -> Listed:
    """The shape of a budget, scaled so that its steps from `start` on use a given total.

    For comparisons at equal use: give each arm the total of one of them (see `total_of`).

    Args:
        total: token-steps, met exactly; or with `cost` the sum of the cost of these steps, met
            from below by less than what one more token in any step would cost.
        most: reference tokens of the run; needed with `cost`.
        cost: of one step with so many reference tokens, rising with them, such as
            ``lambda tokens: flop(text + generation + tokens)``.

    Returns:
        A budget whose `made` says which of both is equal. Steps before `start` keep the budget's
        numbers, and are not counted.

    Raises:
        InputError: a total that does not fit.

    Examples:
        >>> matched(rp.Adaptive(16, 64), total=100, steps=4).tokens
        (11, 15, 27, 47)
    """
    counts = _counts(budget, steps, sigmas, start)
    shape = counts[start:]
    if cost is None:
        whole = int(total)
        if whole != total:
            raise InputError(f"A number of token-steps is a whole number, not {total}.")
        return Listed(
            (*counts[:start], *with_total(shape, whole, most)),
            f"{_name(budget)} scaled to {whole} token-steps from step {start}",
        )
    if most is None:
        raise InputError("A budget of equal cost needs `most`, the reference tokens of the run.")
    return Listed(
        (*counts[:start], *with_cost(shape, total, cost, most)),
        f"{_name(budget)} scaled to a cost of at most {total:.6g} from step {start}",
    )


def total_of(
    budget: Budget,
    steps: int,
    sigmas: Sequence[float] | None = None,
    *,
    start: int = 0,
    cost: Callable[[int], float] | None = None,
) -> float:
    """Token-steps of a budget from step `start` on, or with `cost` what these steps cost.

    Raises:
        InputError: `start` outside the run.

    Examples:
        >>> total_of(rp.Adaptive(16, 64), 5)
        170.0
    """
    counts = _counts(budget, steps, sigmas, start)[start:]
    return float(sum(counts)) if cost is None else float(sum(map(cost, counts)))


def with_total(
    shape: Sequence[float] | np.ndarray, total: int, most: int | None = None
) -> list[int]:
    """Whole numbers in proportion to `shape` that sum to exactly `total`, each 1 to `most`.

    Raises:
        InputError: no such numbers.

    Examples:
        >>> with_total([1, 2, 3], 12)
        [2, 4, 6]
    """
    weights = np.asarray(shape, np.float64)
    top = total if most is None else most
    if not len(weights) <= total <= top * len(weights):
        raise InputError(
            f"{total} token-steps cannot be spread over {len(weights)} steps with 1 to {top} each."
        )
    return _scaled(weights, total, top, lambda counts: float(counts.sum())).tolist()


def with_cost(
    shape: Sequence[float] | np.ndarray, total: float, cost: Callable[[int], float], most: int
) -> list[int]:
    """Whole numbers in proportion to `shape`, each 1 to `most`, whose cost comes nearest `total`
    from below.

    Args:
        cost: of one step with so many reference tokens, such as its FLOP; rises with the tokens.

    Raises:
        InputError: even one token a step costs more.

    Examples:
        >>> with_cost([1, 2, 3], 30, cost=lambda tokens: tokens**2, most=16)
        [2, 3, 4]
    """
    weights = np.asarray(shape, np.float64)

    def summed(counts: np.ndarray) -> float:
        return float(sum(cost(int(count)) for count in counts))

    if summed(np.ones(len(weights), np.int64)) > total:
        raise InputError(f"A cost of {total:.4g} is below that of one token in each step.")
    return _scaled(weights, total, most, summed).tolist()


def _scaled(
    weights: np.ndarray, total: float, most: int, cost: Callable[[np.ndarray], float]
) -> np.ndarray:
    """The largest counts below a common factor that stay within `total`, filled up one by one."""
    if not (np.isfinite(weights).all() and weights.min() > 0):
        raise InputError("The shape of a schedule must be positive and finite in every step.")
    low, high = 0.0, (most + 1) / weights.min()

    def counts_at(factor: float) -> np.ndarray:
        return np.clip(np.floor(weights * factor), 1, most).astype(np.int64)

    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(counts_at(middle)) <= total else (low, middle)
    counts = counts_at(low)
    # the next token goes where the whole number falls shortest of the proportion
    order = np.argsort(-(weights * low - counts), kind="stable")
    filled = True
    while filled:  # a step that costs little may have room for more than one
        filled = False
        for step in order:
            if counts[step] < most:
                counts[step] += 1
                if cost(counts) > total:
                    counts[step] -= 1
                else:
                    filled = True
    return counts


def _counts(
    budget: Budget, steps: int, sigmas: Sequence[float] | None, start: int
) -> tuple[int, ...]:
    _check_start(start, steps)
    given, budget = budget, as_budget(budget)
    if not hasattr(budget, "tokens_at"):
        raise InputError(
            f"{given!r} is a part of the reference, and the number of its tokens is not known "
            f"here; say of how many: budget_of({str(budget)!r}, 256)."
        )
    return tuple(budget.tokens_at(step, steps, sigmas) for step in range(steps))


def _check_start(start: int, steps: int) -> None:
    if not 0 <= start < steps:
        raise InputError(f"start={start} is outside the run: steps are 0 to {steps - 1}.")


def _name(budget: Budget) -> str:
    return getattr(budget, "made", repr(budget))
