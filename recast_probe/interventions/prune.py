"""Keep only the best reference tokens of a ranking (ReCAST, Section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recast_probe._utils.checks import check_int
from recast_probe._utils.markup import html_table
from recast_probe.content.description import describe_setting
from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention, RunContext, StepContext
from recast_probe.interventions.needs import Needs
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.selection.baselines import RandomPerStep
from recast_probe.selection.budget_language import as_budget, budget_of
from recast_probe.selection.mass import MassShare
from recast_probe.selection.rankings import Ranking


def ranked_budget(budget: Any, ranked: bool = False) -> Any:
    """A budget in any of the forms of `as_budget`, or a ``MassShare`` where there is a ranking.

    Args:
        ranked: there is a ranking that a ``MassShare`` can be taken of.

    Raises:
        InputError: something else.
    """
    if isinstance(budget, MassShare):
        if not ranked:
            raise InputError(f"{budget!r} is taken of a ranking, and there is none here.")
        return budget
    return as_budget(budget)


def check_budget(budget: Any, run: RunContext, start: int) -> None:
    """Check that a budget fits the reference tokens of a run from step ``start`` on.

    Raises:
        InputError: fewer than one token, more tokens than there are, or a step outside the run.
    """
    if check_int("start", start, 0) > run.steps:
        raise InputError(f"start={start} is outside the run: steps are 0 to {run.steps - 1}.")
    if isinstance(budget, MassShare):
        return
    available = run.reference_tokens
    for step in range(start, run.steps):
        tokens = tokens_at(budget, step, run)
        if not 1 <= tokens <= available:
            raise InputError(
                f"{budget!r} keeps {tokens} reference tokens in step {step}, but there are "
                f"{available}; choose a budget between 1 and {available}."
            )


def tokens_kept(budget: Any, ranking: Ranking, step: int, run: RunContext) -> int:
    """How many tokens of a ranking stay in a step."""
    if isinstance(budget, MassShare):
        return budget.tokens_of(ranking)
    return tokens_at(budget, step, run)


def tokens_at(budget: Any, step: int, run: RunContext) -> int:
    """How many reference tokens a budget means in a step of a run."""
    found: Any = budget_of(budget, run.reference_tokens)
    return found.tokens_at(step, run.steps, run.sigmas)


def budget_facts(budget: Any, run: RunContext) -> dict[str, Any]:
    """The budget as it was in a run, in tokens, where it was said as a part of the reference."""
    if isinstance(budget, MassShare):
        return {}
    return {"budget": describe_setting(budget_of(budget, run.reference_tokens))}


@dataclass(frozen=True)
class Prune(Intervention):
    """Drop all but the best reference tokens; the kept ones keep their rotary positions.

    Attributes:
        ranking: the order of the reference tokens, the same in all steps or a ``RandomPerStep``.
        budget: how many stay in each step: 64, 0.25, "25%", "eq4:16:64", or another budget of
            ``recast_probe.budget`` (shares are held as the number of tokens that they mean), or a
            ``MassShare`` of the ranking.
        start: first step in which tokens are dropped.

    Raises:
        InputError: not a ranking, or not a budget. When the run is prepared: a ranking of another
            number of tokens, or a budget that does not fit it.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe = rp.Probe(tiny.build_tiny_pipeline())
        >>> prune = Prune(rp.rank.random(16, seed=0), budget=4, start=1)
        >>> settings = {"steps": 2, "progress": False}
        >>> result = probe.generate(tiny.tiny_image(), "a cat", interventions=[prune], **settings)
        >>> result.reference_tokens_per_step
        (16, 4)
    """

    ranking: Ranking | RandomPerStep
    budget: Any
    start: int = 0

    def __post_init__(self) -> None:
        _check_ranking(self.ranking)
        budget = ranked_budget(self.budget, ranked=True)
        if not isinstance(budget, MassShare):
            budget = budget_of(budget, self.ranking.tokens)
        object.__setattr__(self, "budget", budget)

    def _repr_html_(self) -> str:
        rows = [
            ("keeps, of each step's tokens", self.budget),
            ("best first, by", self.ranking),
            ("from step", self.start),
        ]
        return html_table("Prune", rows)

    def prepare(self, run: RunContext) -> None:
        if self.ranking.tokens != run.reference_tokens:
            raise InputError(
                f"The ranking {self.ranking.name!r} orders {self.ranking.tokens} reference tokens, "
                f"but this run has {run.reference_tokens}; rank a profile of the same image size."
            )
        check_budget(self.budget, run, self.start)
        if isinstance(self.budget, MassShare):
            self.budget.tokens_of(self._ranking_at(self.start))

    def needs(self, run: RunContext) -> Needs:
        steps = range(self.start, run.steps)
        return Needs(drops=[step for step in steps if self._kept(step, run) < run.reference_tokens])

    def reference_tokens(self, step: StepContext) -> np.ndarray | None:
        if step.step < self.start:
            return None
        return self._ranking_at(step.step).top(self._kept(step.step, step.run))

    def _kept(self, step: int, run: RunContext) -> int:
        return tokens_kept(self.budget, self._ranking_at(step), step, run)

    def _ranking_at(self, step: int) -> Ranking:
        return self.ranking.at(step) if isinstance(self.ranking, RandomPerStep) else self.ranking


def _check_ranking(given: Any) -> None:
    if isinstance(given, Ranking | RandomPerStep):
        return
    if isinstance(given, AttentionProfile):
        how = "rank its tokens first: rp.rank.cross_image(profile)"
    elif isinstance(getattr(given, "ranking", None), Ranking):
        how = "give the ranking that the run made: result.ranking"
    elif isinstance(given, np.ndarray | list | tuple | range):
        how = (
            'make one of an order, best first: rp.rank.Ranking(order, "mine"), or of scores: '
            'rp.rank.Ranking.from_score(scores, "mine", {})'
        )
    else:
        how = "see rp.rank, such as rp.rank.cross_image(profile)"
    raise InputError(f"Prune takes a ranking of the reference tokens, not {_kind(given)}; {how}.")


def _kind(given: Any) -> str:
    return f"an object of the type {type(given).__name__}"
