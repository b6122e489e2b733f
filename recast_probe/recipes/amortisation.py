"""One ranking for all prompts of a reference: what it costs in identity, and what it saves.

The ranking is made in step 0 of a reference's first prompt. Its other prompts are run with that
ranking and with one of their own, at equal token-steps; the first prompt itself is left out, as
both rankings are the same there. A ranking that is known beforehand also needs no full step, so one
more arm prunes from step 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from recast_probe import budget, rank
from recast_probe.cost_model import (
    TransformerConfig,
    config_of,
    flux_kontext_dev,
    readout_work,
    run_work,
)
from recast_probe.datasets import Case
from recast_probe.errors import InputError
from recast_probe.figures.style import BLUE, GREY, INK, chart, house_style
from recast_probe.interventions import Prune
from recast_probe.interventions.base import Intervention
from recast_probe.layout import Grid, TokenLayout
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import bench, rows_digest
from recast_probe.recipes.comparing import difference, run_arms, summarise
from recast_probe.recipes.page import Page, Section, corrected, higher, too_few, warned
from recast_probe.recipes.recipe import Recipe
from recast_probe.recipes.remembered import Remembered
from recast_probe.recipes.results import finish
from recast_probe.recipes.words import about, counted
from recast_probe.selection.rankings import Ranking
from recast_probe.studies import markdown
from recast_probe.studies.comparison import Arm, PlannedArm
from recast_probe.studies.tables import p_value, row_interval

BLOCKS = "paper"
FRESH, REUSED, FROM_0 = "recast", "reused ranking", "reused ranking, from step 0"
SERVED = (1, 2, 5, 10, 20, 50, 100)  # images that one ranking serves
FLUX_KONTEXT = TokenLayout(512, Grid(64, 64), (Grid(64, 64),))  # 1024 x 1024 pixels


def prepare(chosen: Any) -> None:
    """Check that there are prompts to reuse a ranking for.

    Raises:
        InputError: there is one.
    """
    if chosen.prompts < 2:
        raise InputError("A ranking is reused over prompts: give --prompts 2 or more.")


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Run what is missing, print the tables, write everything to --out."""
    cases = bench(chosen)
    check_prompts(cases)
    layout = probe.layout(cases[0].reference)
    adaptive = budget.Adaptive.paper(layout.reference_tokens)
    first: dict[str, Case] = {}
    for case in cases:
        first.setdefault(case.subject, case)
    ranked = rankings(probe, chosen.steps)

    def reused(start: int) -> PlannedArm:
        def plan(case: Case) -> list[Intervention]:
            return [Prune(ranked(first[case.subject]), adaptive, start)]

        return PlannedArm(
            {"ranking": "first prompt", "blocks": BLOCKS, "budget": vars(adaptive), "start": start},
            plan,
        )

    arms: dict[str, Arm | PlannedArm] = {
        "full": Arm("full"),
        FRESH: Arm("recast", adaptive, BLOCKS),
        REUSED: reused(1),
        FROM_0: reused(0),
        "random": Arm("random", adaptive),
    }
    digests = {name: rows_digest([case]) for name, case in first.items()}

    def ranked_by(case: Case) -> dict[str, str]:
        digest = digests[case.subject]
        return {} if digest is None else {"first": digest}

    runs, store = run_arms(chosen, probe, arms, rests_on=ranked_by)
    others = runs[~runs["prompt"].str.startswith("0: ")]
    rows = summarise(others, FRESH, chosen.seed)
    made_for = {name: case.category for name, case in first.items()}
    kinds = by_kind(others, made_for, chosen.seed)
    config = config_of(probe.family.transformer)
    kontext = budget.Adaptive.paper(FLUX_KONTEXT.reference_tokens)
    speeds = {
        probe.name: speed_ups(config, layout, adaptive, chosen.steps),
        "FLUX.1 Kontext dev": speed_ups(flux_kontext_dev(), FLUX_KONTEXT, kontext, 28),
    }
    saved = [
        {"images of one ranking": count}
        | {f"bound on {model}": round(curve[place], 4) for model, curve in speeds.items()}
        for place, count in enumerate(SERVED)
    ]
    print(markdown(rows))
    print(f"\nReused minus fresh, by kind of edit\n\n{markdown(kinds)}")
    print(f"\nSpeed-up against the full run, by FLOP\n\n{markdown(saved)}")
    measured = {
        "reused_above_fresh": difference(others, REUSED, FRESH, chosen.seed),
        "amortised_speed_up": speeds[probe.name][-1],
    }
    alike = others[others["category"] == others["subject"].map(made_for)]
    if not alike.empty:
        measured["reused_above_fresh_of_one_kind"] = difference(alike, REUSED, FRESH, chosen.seed)
    found = {"table": rows, "kinds": kinds, "saved": saved}
    figures = {"amortisation": draw(others, speeds, measured, chosen.seed, probe.name)}
    page = page_on(found, others, chosen.seed)
    finish(chosen, store, {"runs": runs}, found | {"measured": measured}, figures, page)
    return found


def check_prompts(cases: Sequence[Case]) -> None:
    """Check that there is a prompt to reuse a ranking for.

    Raises:
        InputError: every reference has one prompt.
    """
    if len(cases) == len({case.subject for case in cases}):
        raise InputError(
            f"A ranking is reused over prompts, and each of the {len(cases)} references has one "
            "prompt: give some of them 2 or more."
        )


def page_on(found: dict[str, Any], others: pd.DataFrame, seed: int) -> Page:
    """The page on one ranking for all prompts of a reference."""
    pairs = [(REUSED, FRESH), (FROM_0, REUSED), (REUSED, "random")]
    apart = corrected([difference(others, *pair, seed) for pair in pairs])
    says = [higher(*pair, each) for pair, each in zip(pairs, apart, strict=True)]
    few = too_few(others["subject"].nunique(), len(found["kinds"]))
    return Page(
        "May one ranking serve other prompts?",
        [
            Section(
                text=f"{counted(others)} "
                "The ranking of a reference's first prompt is used for its "
                f"other prompts and compared with a ranking made for each of them. {about(others)}",
                rows=found["table"],
                figure="amortisation",
                alt="Identity with a ranking of its own and a reused one, and the bound on speed",
                says=says + warned(apart),
            ),
            Section("By kind of edit", f"Reused minus fresh. {few}".strip(), found["kinds"]),
            Section(
                "What it saves",
                "The bound on the speed-up against the full run, from the model's config, by how "
                "many images one ranking serves.",
                found["saved"],
            ),
        ],
    )


def rankings(probe: Probe, steps: int) -> Remembered[Ranking]:
    """A function that ranks by step 0 of a case; the last one is remembered."""

    def ranked(case: Case) -> Ranking:
        profile = probe.profile(
            case.reference,
            case.prompt,
            steps,
            case.seed,
            blocks=BLOCKS,
            profile_steps=0,
            mass_table="queried",
            progress=False,
        )
        return rank.cross_image(profile, blocks=BLOCKS)

    return Remembered(ranked)


def by_kind(runs: pd.DataFrame, ranked_for: dict[str, str], seed: int) -> list[dict[str, Any]]:
    """Reused minus fresh where the ranking is of the same kind of edit, of another, and for each
    kind that it was made and used for.

    Args:
        ranked_for: the kind of edit that each subject's ranking was made for.
    """
    made = runs["subject"].map(ranked_for)
    same = made == runs["category"]
    parts = [("the same kind", "any", runs[same]), ("another kind", "any", runs[~same])]
    parts += [(*kinds, part) for kinds, part in runs.groupby([made, runs["category"]])]
    parts = [each for each in parts if not each[2].empty]  # else too few prompts
    apart = corrected([difference(part, REUSED, FRESH, seed) for *_, part in parts])
    rows = []
    for (made_for, used_for, part), found in zip(parts, apart, strict=True):
        means = part.groupby("arm")["identity"].mean()
        rows.append(
            {
                "ranking made for": made_for,
                "used for": used_for,
                "pairs": len(part) // runs["arm"].nunique(),
                "fresh": round(float(means[FRESH]), 3),
                "reused": round(float(means[REUSED]), 3),
                "difference": row_interval(found),
                "p (Holm)": p_value(found["p_holm"]),
            }
        )
    return rows


def speed_ups(
    config: TransformerConfig, layout: TokenLayout, chosen: budget.Adaptive, steps: int
) -> list[float]:
    """Bound on the speed-up over full runs, by FLOP, if one ranking serves so many images.

    The first image runs its step 0 in full and reads the attention of all blocks there; the others
    are pruned from step 0 on.
    """
    text, generation, reference = layout.text, layout.generation.size, layout.reference_tokens
    pruned = chosen.schedule(steps).tolist()

    def run(counts: Sequence[int]) -> float:
        return run_work(config, text, generation, counts).total

    full, later = run([reference] * steps), run(pruned)
    first = run([reference, *pruned[1:]]) + readout_work(config, generation, reference)
    return [full * count / (first + (count - 1) * later) for count in SERVED]


def draw(
    runs: pd.DataFrame,
    speeds: dict[str, list[float]],
    measured: dict[str, Any],
    seed: int,
    model: str,
) -> Figure:
    """Left what a reused ranking costs, subject by subject; right what it saves."""
    wide = runs.pivot_table(index="subject", columns="arm", values="identity")
    paired = measured["reused_above_fresh"]
    losses = {name: difference(runs, name, FRESH, seed) for name in (REUSED, FROM_0, "random")} | {
        REUSED: paired
    }
    with house_style():
        figure = chart(
            8.8,
            3.4,
            title="One ranking for all prompts of a reference",
            note="Left: faint points are subjects, bars 95 % intervals. Right: bound by FLOP; the "
            "paper's number for 100 images is 2.59.",
            selection=f"{model}, blocks {BLOCKS}, ranked in step 0 of the first prompt; "
            f"{len(runs) // runs['arm'].nunique()} runs an arm",
        )
        left, right = figure.subplots(1, 2)
        for place, (name, loss) in enumerate(losses.items()):
            points = wide[name] - wide[FRESH]
            left.plot(np.full(len(points), place), points, "o", color=GREY, alpha=0.3, markersize=3)
            left.vlines(place + 0.15, loss["low"], loss["high"], color=BLUE, linewidth=3)
            left.plot(place + 0.15, loss["mean"], "o", color=BLUE)
        left.axhline(0, color=INK, linewidth=0.8, linestyle=":")
        left.set_xticks(range(len(losses)), ["reused", "reused,\nfrom step 0", "random"])
        left.set(ylabel="Identity minus a fresh ranking's", xlim=(-0.5, len(losses) - 0.5))
        for colour, (name, curve) in zip((BLUE, INK), speeds.items(), strict=False):
            right.plot(SERVED, curve, "o-", color=colour, label=name)
        right.set_xscale("log")
        right.set_xticks(SERVED, SERVED)
        right.set(xlabel="Images that one ranking serves", ylabel="Speed-up by FLOP")
        right.legend()
    return figure


RECIPE = Recipe(run, {"prompts": (4, 2)}, prepare=prepare, arms=True)
