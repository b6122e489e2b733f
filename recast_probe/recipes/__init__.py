"""Whole studies by name: each runs its arms, and writes tables, figures and a page.

Nothing of a study is imported before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recast_probe.recipes.recipe import Recipe

# what a list of them says, which is how their modules begin
STUDIES = {
    "compare": "Your own arms against the full run and the run without a reference.",
    "table_1": "Table 1: ReCAST against every baseline at equal token-steps, with intervals and "
    "p-values.",
    "table_2": "Table 2: what each part of ReCAST is worth, at equal token-steps.",
    "budget_sweep": "Identity against the number of reference tokens, in tokens and in FLOP "
    "(Section 3.4).",
    "schedules": "Does Eq. 4's growing budget beat flat, inverted and entropy-matched ones at "
    "equal token-steps?",
    "amortisation": "One ranking for all prompts of a reference: what it costs in identity, and "
    "what it saves.",
    "sensitivity": "Does it matter which step is profiled, and which blocks?",
    "token_cache": "Pruning the reference and caching features together (ReCAST and ToCa, Section "
    "3.4).",
    "acceleration": "Quality against speed: pruned, reused, refreshed and skipped, and how keys "
    "and values drift.",
    "concentration": "Figure 2 and the entropy curves: how concentrated attention is, block by "
    "block, step by step.",
    "stability": "Do rankings of one reference agree across prompts? 10 references x 15 prompts "
    "(Section 3.4).",
    "faithfulness": "Is attention a faithful ranking? Deletion and insertion curves of every "
    "ranking, and controls.",
    "paths": "Which path carries what: edges between text, generation and reference cut, one after "
    "the other.",
    "heads": "Which blocks and heads the image needs for reading the reference, and how these "
    "attend.",
    "causal_map": "Where a subject swap is decided: keys and values of another subject, by block "
    "and step.",
    "sinks": "Are there attention sinks, and do they matter? Found on some subjects, cut on "
    "others.",
    "dose_response": "Does a reference strength work? Identity over factors on the attention to "
    "the reference.",
    "ip_adapter": "FLUX.1 with an IP-Adapter: how skewed attention to its image tokens is, and "
    "pruning to half.",
    "qualitative": "Figure 3: images side by side, of subjects that a rule chooses.",
}


def recipe_of(name: str) -> tuple[Recipe, str]:
    """A study by its name, and what its module says of it.

    Raises:
        InputError: there is no such study.
    """
    from recast_probe._utils.suggestions import did_you_mean
    from recast_probe.errors import InputError

    if name not in STUDIES:
        raise InputError(
            f"There is no study {name[:60]!r}; there is {', '.join(STUDIES)}."
            f"{did_you_mean(name, STUDIES)}"
        )
    module = import_module(f"recast_probe.recipes.{name}")
    return module.RECIPE, module.__doc__ or ""
