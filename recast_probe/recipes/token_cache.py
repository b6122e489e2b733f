"""Pruning the reference and caching features together (ReCAST and ToCa, Section 3.4)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from recast_probe import budget
from recast_probe.cost_model import (
    TransformerConfig,
    cached_run_work,
    config_of,
    flux_kontext_dev,
    mean_fresh,
)
from recast_probe.datasets import Case
from recast_probe.figures.style import INK, arm_colours, chart, house_style
from recast_probe.interventions import Recast, TokenCache
from recast_probe.interventions.base import Intervention
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import bench
from recast_probe.recipes.comparing import difference, kept_by, run_arms, summarise
from recast_probe.recipes.page import Page, Section, corrected, higher, warned
from recast_probe.recipes.recipe import Recipe
from recast_probe.recipes.results import finish
from recast_probe.recipes.words import about, counted
from recast_probe.studies import Outcome, markdown, means
from recast_probe.studies.comparison import Arm, PlannedArm

RECAST, CACHE, BOTH = "recast", "ToCa", "recast + ToCa"
NO_FRESH = {"double": 0.0, "single": 0.0}
TEXT, TOKENS, STEPS = 512, 4096, 28  # of FLUX.1 Kontext at 1024 x 1024 pixels
PAPER = 3.38


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Run what is missing, print the table, write everything to --out."""
    layout = probe.layout(bench(chosen)[0].reference)
    adaptive = budget.Adaptive.paper(layout.reference_tokens)
    cache = TokenCache()
    arms: dict[str, Arm | PlannedArm] = {
        "full": Arm("full"),
        RECAST: Arm("recast", adaptive),
        CACHE: planned(cache),
        BOTH: planned(Recast(adaptive), cache),
    }
    runs, store = run_arms(chosen, probe, arms, shares)
    config = config_of(probe.family.transformer)
    kinds = {f"fresh_{kind}": kind for kind in NO_FRESH}
    fresh = {
        arm: part[list(kinds)].mean().rename(kinds).to_dict() for arm, part in runs.groupby("arm")
    }
    sizes = (layout.text, layout.generation.size, layout.reference_tokens)
    here = speed_ups(config, sizes, chosen.steps, cache, fresh)
    published = mean_fresh(cache.share, flux_kontext_dev(), STEPS)
    kontext = speed_ups(
        flux_kontext_dev(),
        (TEXT, TOKENS, TOKENS),
        STEPS,
        cache,
        dict.fromkeys((CACHE, BOTH), published),
    )
    computed = runs.groupby("arm")["computed_share"].mean()
    rows = [
        row
        | {
            "generation computed": f"{computed[row['arm']]:.1%}",
            "speed-up by FLOP": round(here[row["arm"]], 3),
            "the same for FLUX.1 Kontext dev": round(kontext[row["arm"]], 3),
        }
        for row in summarise(runs, RECAST, chosen.seed)
    ]
    print(markdown(rows))
    print(f"\nThe paper's speed-up with both is {PAPER}, in wall time.")
    measured = {
        "token_cache_speed_up": here[BOTH],
        "token_cache_retention": kept_by(runs, BOTH, chosen.seed)["retention"],
        "token_cache_above_recast": difference(runs, BOTH, RECAST, chosen.seed),
    }
    figures = {"token_cache": draw(runs, here, chosen.seed, probe.name)}
    with_cache, with_both = corrected(
        [difference(runs, CACHE, "full", chosen.seed), measured["token_cache_above_recast"]]
    )
    page = Page(
        "Together with token caching",
        [
            Section(
                text=f"{counted(runs)} "
                "ToCa's FLUX variant (generation tokens are computed anew only "
                f"where they matter) beside and together with ReCAST. {about(runs)} Speed-ups by "
                f"FLOP are bounds from the config; the paper's with both is {PAPER}, in wall time.",
                rows=rows,
                figure="token_cache",
                alt="Identity and bound on speed with ReCAST, ToCa and both",
                says=[
                    higher(CACHE, "the full run", with_cache),
                    higher(BOTH, RECAST, with_both),
                    *warned([with_cache, with_both]),
                ],
            )
        ],
    )
    summary = {"table": rows, "measured": measured}
    finish(chosen, store, {"runs": runs}, summary, figures, page)
    return {"table": rows}


def planned(*interventions: Intervention) -> PlannedArm:
    """The same interventions for every case."""

    def plan(case: Case) -> list[Intervention]:
        return list(interventions)

    return PlannedArm({"interventions": [each.describe() for each in interventions]}, plan)


def shares(case: Case, outcome: Outcome) -> dict[str, Any]:
    """What a run's cache says of itself; a run without one computes everything."""
    for described in outcome.provenance["interventions"]:
        if described["name"] == "TokenCache":
            run = described["run"]
            fresh = NO_FRESH | run["fresh_generation_share"]
            return {
                "computed_share": run["computed_generation_share"],
                **{f"fresh_{kind}": share for kind, share in fresh.items()},
            }
    return {"computed_share": 1.0, **{f"fresh_{kind}": 1.0 for kind in NO_FRESH}}


def speed_ups(
    config: TransformerConfig,
    sizes: tuple[int, int, int],
    steps: int,
    cache: TokenCache,
    fresh: dict[str, dict[str, float]],
) -> dict[str, float]:
    """Bound on the speed-up of every arm, by FLOP.

    Args:
        sizes: text, generation and reference tokens.
        fresh: share of generation tokens computed anew in cached steps, by arm and kind of block.
    """
    text, generation, reference = sizes
    full = [reference] * steps
    pruned = [reference, *budget.Adaptive.paper(reference).schedule(steps)[1:].tolist()]

    def work(counts: list[int], arm: str) -> float:
        caches = arm in (CACHE, BOTH)
        computed = cache.full_steps(steps) if caches else range(steps)
        return cached_run_work(
            config, text, generation, counts, computed, fresh.get(arm, NO_FRESH), pool=cache.pool
        )

    whole = work(full, "full")
    arms = {"full": full, RECAST: pruned, CACHE: full, BOTH: pruned}
    return {arm: whole / work(counts, arm) for arm, counts in arms.items()}


def draw(runs: pd.DataFrame, speeds: dict[str, float], seed: int, model: str) -> Figure:
    """Identity, and likeness to the full run, against the bound on the speed-up."""
    colours = arm_colours(list(speeds))
    with house_style():
        figure = chart(
            8.2,
            3.3,
            title="Pruning the reference, caching features, and both",
            note="Points: mean with its 95 % interval.",
            selection=f"{model}, {len(runs) // runs['arm'].nunique()} runs an arm, ToCa as "
            "published for FLUX",
        )
        panels = figure.subplots(1, 2)
        words = {
            "identity": "Masked MobileNetV2 cosine",
            "identity_to_full": "The same to the full run's image",
        }
        for axes, (name, label) in zip(panels, words.items(), strict=True):
            found = means(runs, name, seed=seed)
            for arm, speed in speeds.items():
                row = found.loc[arm]
                axes.vlines(speed, row["low"], row["high"], color=colours[arm], linewidth=3)
                axes.plot(speed, row["mean"], "o", color=colours[arm], label=arm)
            axes.axhline(found.loc["full", "mean"], color=INK, linewidth=0.8, linestyle=":")
            axes.set(xlabel="Speed-up of the transformer by FLOP", ylabel=label)
        panels[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


RECIPE = Recipe(run, {"steps": (28, 6)})
