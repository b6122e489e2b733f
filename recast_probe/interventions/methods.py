"""Methods by name, as tables and commands call them: each a list of interventions.

All of them run step 0 with the full reference and keep as many tokens in every later step as the
budget says, so that methods with one budget process equally many tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention
from recast_probe.interventions.merge import Merge
from recast_probe.interventions.prune import Prune
from recast_probe.interventions.recast import Recast
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
    "random": "chosen by lot, once",
    "random-per-step": "chosen by lot, anew in every step",
    "uniform": "spread evenly over the reference",
    "mask-oracle": "the tokens inside the subject's mask first",
    "reversed": "ReCAST's ranking, worst first",
    "none": "no reference token in any step",
}
WITHOUT_BUDGET = ("full", "none")


def method(
    name: str,
    budget: Any,
    layout: TokenLayout,
    *,
    blocks: Any = "paper",
    mask: np.ndarray | None = None,
    seed: int = 0,
) -> list[Intervention]:
    """The interventions of a named method.

    Args:
        name: one of `METHODS`.
        budget: tokens that stay from step 1 on: a number or a budget; unused by "full" and "none".
        layout: of the run; see `Probe.layout`.
        blocks: what the rankings that ask the model average over.
        mask: bool (rows, columns), for "mask-oracle"; see `Probe.reference_mask`.
        seed: of the methods that draw lots.

    Raises:
        InputError: an unknown name, or no mask for the oracle.
    """
    tokens = layout.reference_tokens
    if name == "full":
        return []
    if name == "none":
        return [WithoutReference()]
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
    raise InputError(f"There is no method {name!r}; there is {', '.join(METHODS)}.")
