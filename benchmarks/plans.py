"""What a run really computed, as a plan that its bound is counted from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from recast_probe.cost_model import RunPlan, TransformerConfig
from recast_probe.layout import TokenLayout
from recast_probe.runs.result import RunResult


def full_run(layout: TokenLayout, steps: int, calls: int = 1) -> RunPlan:
    """The run that has every token of this layout in every step."""
    return RunPlan.full(
        layout.text, layout.generation.size, layout.reference_tokens, steps, calls=calls
    )


def plan_of_run(full: RunPlan, result: RunResult) -> RunPlan:
    """The plan that a run followed, from what it reports."""
    return plan_of(full, result.reference_tokens_per_step, result.provenance["interventions"])


def plan_of(
    full: RunPlan, tokens: Sequence[int], interventions: Sequence[Mapping[str, Any]]
) -> RunPlan:
    """The plan of a run with so many reference tokens in each step and these interventions' facts.

    What an intervention does beyond the tokens is told by the function that `MORE` has for its
    name; one that is not there counts as doing no more.
    """
    plan = full.keep(list(tokens), start=0)
    for facts in interventions:
        more = MORE.get(facts["name"])
        if more is not None:
            plan = more(plan, facts)
    return plan


def _token_cache(plan: RunPlan, facts: Mapping[str, Any]) -> RunPlan:
    # generation tokens computed anew, by kind of block; none where no step came from the cache
    fresh = {"double": 1.0, "single": 1.0} | facts["run"]["fresh_generation_share"]
    return plan.cache_tokens(facts["run"]["full_steps"], fresh)


def _reuse(plan: RunPlan, facts: Mapping[str, Any]) -> RunPlan:
    return plan.mark_reused(facts["run"]["reused_steps"])


def _step_cache(plan: RunPlan, facts: Mapping[str, Any]) -> RunPlan:
    # with true guidance both branches are cached; a step counts where any of them computes
    branches = facts["run"]["computed_steps"].values()
    return plan.compute(sorted({step for steps in branches for step in steps}))


# how the facts of an intervention change the plan
MORE: dict[str, Callable[[RunPlan, Mapping[str, Any]], RunPlan]] = {
    "TokenCache": _token_cache,
    "ReuseReference": _reuse,
    "StepCache": _step_cache,
}


def least_work(config: TransformerConfig, plan: RunPlan) -> float:
    """FLOP of a plan, those of 8-bit linear layers counted half: the unit of the bounds."""
    work = plan.work(config)
    return work.total - (work.linear / 2 if plan.float8_linears else 0.0)
