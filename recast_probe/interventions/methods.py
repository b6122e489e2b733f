"""Methods by name, as tables and commands call them: each a list of interventions.

All of them run step 0 with the full reference and keep as many tokens in every later step as the
budget says, so that methods with one budget process equally many tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recast_probe._utils.suggestions import did_you_mean
from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention
from recast_probe.interventions.merge import Merge
from recast_probe.interventions.prune import Prune
from recast_probe.interventions.recast import Recast
from recast_probe.interventions.reuse import ReuseReference
from recast_probe.interventions.step_cache import StepCache
from recast_probe.interventions.without_reference import WithoutReference
from recast_probe.layout import TokenLayout
from recast_probe.selection.baselines import RandomPerStep, mask_oracle, uniform_grid
from recast_probe.selection.rankings import random

METHODS = {
    "full": "all reference tokens in every step",
    "recast": "ranked by the attention generation tokens pay them in step 0 (ReCAST)",
    "self-attention": "ranked by the attention reference tokens pay one another (Attn-Prune)",
    "cosine": "ranked by likeness to the mean generation token",
    "merge": "similar tokens merged (ToMe)",
    "random": "random, drawn once",
    "random-per-step": "random, redrawn every step",
    "uniform": "spread evenly over the reference",
    "mask-oracle": "the tokens inside the subject's mask first",
    "reversed": "ReCAST's ranking, worst first",
    "reuse": "keys and values of step 0 reused: all, or ranked as by ReCAST",
    "reuse+step-cache": "the same, with 5 of 7 steps computed",
    "step-cache": "all reference tokens, with 5 of 7 steps computed",
    "none": "no reference token in any step",
}
WITHOUT_BUDGET = ("full", "step-cache", "none")
REUSING = ("reuse", "reuse+step-cache")
# 20 of 28
COMPUTED_SHARE = 5 / 7


def method(
    name: str,
    budget: Any,
    layout: TokenLayout,
    *,
    blocks: Any = "paper",
    mask: np.ndarray | None = None,
    seed: int = 0,
    refresh: int | Sequence[int] | None = None,
    computed: int | float | Sequence[int] | None = None,
) -> list[Intervention]:
    """The interventions of a named method.

    Args:
        name: one of `METHODS`.
        budget: tokens that stay from step 1 on: a number or a budget; unused by `WITHOUT_BUDGET`,
            and None keeps all in `REUSING`.
        layout: of the run; see `Probe.layout`.
        blocks: what the rankings that ask the model average over.
        mask: bool (rows, columns), for "mask-oracle"; see `Probe.reference_mask`.
        seed: of the random methods.
        refresh: of the methods that reuse; see `ReuseReference`.
        computed: of the methods that skip steps; see `StepCache`. None for 5 of 7.

    Raises:
        InputError: an unknown name, no mask for the oracle, or a setting that the method lacks.

    Examples:
        >>> layout = rp.TokenLayout(3, rp.Grid(4, 4), (rp.Grid(4, 4),))
        >>> method("reversed", 4, layout)
        [Recast(budget=Fixed(tokens=4), ..., worst_first=True)]
    """
    if refresh is not None and name not in REUSING:
        raise InputError(f"The method {name!r} reuses nothing, so it takes no refresh.")
    if computed is not None and "step-cache" not in name:
        raise InputError(f"The method {name!r} computes every step, so it takes no such number.")
    tokens = layout.reference_tokens
    if name == "full":
        return []
    if name == "none":
        return [WithoutReference()]
    if "step-cache" in name or name in REUSING:
        return _saving(name, budget, blocks, refresh, computed)
    if name == "merge":
        return [Merge(budget, start=1)]
    if name in ("recast", "reversed"):
        return [Recast(budget, blocks, worst_first=name == "reversed")]
    if name in ("self-attention", "cosine"):
        return [Recast(budget, blocks, ranking=name)]
    if name == "random":
        return [Prune(random(tokens, seed), budget, start=1)]
    if name == "random-per-step":
        return [Prune(RandomPerStep(tokens, seed), budget, start=1)]
    if name == "uniform":
        return [Prune(uniform_grid(layout.references), budget, start=1)]
    if name == "mask-oracle":
        if mask is None:
            raise InputError("The mask oracle needs the subject's mask.")
        return [Prune(mask_oracle(mask, seed=seed), budget, start=1)]
    raise InputError(
        f"There is no method {name!r}; there is {', '.join(METHODS)}.{did_you_mean(name, METHODS)}"
    )


def _saving(name: str, budget: Any, blocks: Any, refresh: Any, computed: Any) -> list[Intervention]:
    """The methods that do not compute all that is attended to."""
    chosen: list[Intervention] = []
    if name in REUSING:
        chosen += [] if budget is None else [Recast(budget, blocks)]
        chosen.append(ReuseReference(refresh=refresh))
    if "step-cache" in name:
        chosen.append(StepCache(COMPUTED_SHARE if computed is None else computed))
    return chosen
