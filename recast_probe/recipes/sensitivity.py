"""Does it matter which step is profiled, and which blocks?

All rankings of a case are made beforehand, from one profiled full run, and every arm prunes from
step 1 by the same budget. So all arms have equal token-steps, also those whose ranking comes from a
late step, which inside a run would cost more full steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from recast_probe import budget, rank
from recast_probe.datasets import Case
from recast_probe.diagnostics import arrays
from recast_probe.figures.style import BLUE, INK, ORANGE, chart, house_style
from recast_probe.interventions import Prune
from recast_probe.interventions.base import Intervention
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import bench
from recast_probe.recipes.comparing import corrected_row, run_arms, summarise
from recast_probe.recipes.page import Page, Section, higher
from recast_probe.recipes.recipe import Recipe
from recast_probe.recipes.remembered import Remembered
from recast_probe.recipes.results import finish
from recast_probe.recipes.words import about, counted
from recast_probe.selection.rankings import Ranking
from recast_probe.studies import Outcome, compare, markdown
from recast_probe.studies.comparison import Arm, PlannedArm
from recast_probe.studies.resampling import bootstrap
from recast_probe.studies.tables import with_interval

TOP = 0.25  # of the tokens, for the Jaccard index
BASELINE = "step 0, blocks paper"
AGREEMENT = {"spearman": "Spearman", "jaccard": f"Jaccard of the top {TOP:.0%}"}
MeanLowHighCount = tuple[float, float, float, int]


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Run what is missing, print the table, write everything to --out."""
    tokens = probe.layout(bench(chosen)[0].reference).reference_tokens
    adaptive = budget.Adaptive.paper(tokens)
    kept = round(float(adaptive.schedule(chosen.steps)[1:].mean()))
    steps = sorted({round(share * (chosen.steps - 1)) for share in (0, 0.25, 0.5, 0.75, 1)})
    ranked = rankings(probe, chosen.steps, steps, kept)

    def arm(name: str) -> PlannedArm:
        def plan(case: Case) -> list[Intervention]:
            return [Prune(ranked(case)[name], adaptive, start=1)]

        settings = {"ranking": name, "profiled": steps, "judged by": kept, "start": 1}
        return PlannedArm({**settings, "budget": vars(adaptive)}, plan)

    arms: dict[str, Arm | PlannedArm] = {
        "full": Arm("full"),
        **{name: arm(name) for name in names(steps, probe.block_kinds)},
        "random": Arm("random", adaptive),
    }

    def agreement(case: Case, outcome: Outcome) -> dict[str, Any]:
        found = ranked(case)
        if outcome.arm not in found:
            return dict.fromkeys((*AGREEMENT, "block"))
        scores: list[Any] = [found[name].score for name in (BASELINE, outcome.arm)]
        pair = np.stack(scores)
        return {
            "spearman": float(arrays.spearman_matrix(pair)[0, 1]),
            "jaccard": jaccard(pair),
            "block": found[outcome.arm].details.get("block"),
        }

    runs, store = run_arms(chosen, probe, arms, agreement)
    agreed = agreements(runs, chosen.seed)
    rows = [
        row
        | {
            words: with_interval(*agreed[row["arm"]][name]) if row["arm"] in agreed else "-"
            for name, words in AGREEMENT.items()
        }
        for row in summarise(runs, BASELINE, chosen.seed)
    ]
    print(markdown(rows))
    figures = {"sensitivity": draw(runs, agreed, chosen.seed, probe.name)}
    apart = compare(runs, "identity", BASELINE, seed=chosen.seed)
    page = Page(
        "From which step, and from which blocks?",
        [
            Section(
                text=f"{counted(runs)} "
                "ReCAST's run with rankings made in other steps or from other "
                "blocks, of a full run beforehand. Spearman and Jaccard compare a ranking with "
                'that of step 0 and the blocks of Eq. 3 ("paper"). Best and worst block are those '
                "with the largest and the smallest share of the subject among their top tokens, "
                "case by case, so they know the mask; the middle one is chosen by its place alone. "
                + about(runs),
                rows=rows,
                figure="sensitivity",
                alt="Identity and agreement of rankings from other steps and blocks",
                says=[
                    higher(name[0].upper() + name[1:], "step 0", corrected_row(apart, name))
                    for name in apart.index
                    if name not in ("full", "random")
                ],
            )
        ],
    )
    finish(chosen, store, {"runs": runs}, {"table": rows}, figures, page)
    return {"table": rows}


def jaccard(pair: np.ndarray) -> float:
    """Jaccard index of the top of two rankings' scores (2, token), of as many tokens as there are
    in this case: references of one study may have several sizes."""
    return float(arrays.jaccard_matrix(pair, arrays.top_count(pair.shape[1], TOP))[0, 1])


def other_blocks(kinds: Sequence[str]) -> list[str]:
    """Groups of blocks besides the paper's: each kind that the model has, and all."""
    return [*(kind for kind in ("single", "double") if kind in kinds), "all"]


def names(steps: list[int], kinds: Sequence[str]) -> list[str]:
    """Names of all rankings: the paper's blocks in every step, then other blocks in step 0."""
    other = other_blocks(kinds)
    return [
        *(f"step {step}, blocks paper" for step in steps),
        "these steps' mean, blocks paper",
        *(f"step 0, blocks {blocks}" for blocks in other),
        *(f"step 0, {place} block alone" for place in ("best", "middle", "worst")),
    ]


def rankings(
    probe: Probe, length: int, steps: list[int], kept: int
) -> Remembered[dict[str, Ranking]]:
    """A function that ranks by one full run of a case; the last case is remembered.

    The best and the worst block are those with the largest and the smallest share of the subject
    among their best `kept` tokens. Choosing them needs the mask, so they bound what one block can
    do; the middle one is chosen by its place alone.
    """

    def ranked(case: Case) -> dict[str, Ranking]:
        profile = probe.profile(
            case.reference,
            case.prompt,
            length,
            case.seed,
            profile_steps=steps,
            mass_table="queried",
            progress=False,
        )
        known = case.reference_mask
        assert known is not None  # the recipe needs it
        mask = probe.reference_mask(known, case.reference).ravel()
        single = rank.single_blocks(profile, lambda each: mask[each.top(kept)].mean(), steps=0)
        choices: list[tuple[str, int | None]] = [("paper", step) for step in steps]
        choices += [("paper", None), *((blocks, 0) for blocks in other_blocks(probe.block_kinds))]
        found = [rank.cross_image(profile, blocks=blocks, steps=step) for blocks, step in choices]
        for block in (single.best, single.middle, single.worst):
            alone = single.rankings[block]
            found.append(Ranking(alone.order, alone.name, alone.score, {"block": block}))
        return dict(zip(names(steps, probe.block_kinds), found, strict=True))

    return Remembered(ranked)


def agreements(runs: pd.DataFrame, seed: int) -> dict[str, dict[str, MeanLowHighCount]]:
    """By arm and measure: mean agreement with the baseline's ranking, low, high, subjects."""
    found: dict[str, dict[str, MeanLowHighCount]] = {}
    for arm, part in runs.groupby("arm", sort=False):
        if part["spearman"].isna().any():
            continue  # no ranking by attention
        found[str(arm)] = {}
        for name in AGREEMENT:
            groups = [group.to_numpy(float) for _, group in part.groupby("subject")[name]]
            interval = bootstrap(groups, seed=seed, within=(-1, 1))
            # a ranking agrees with itself, by definition
            low, high = (1.0, 1.0) if arm == BASELINE else (interval.low, interval.high)
            found[str(arm)][name] = (interval.mean, low, high, interval.count)
    return found


def draw(runs: pd.DataFrame, agreed: dict[str, Any], seed: int, model: str) -> Figure:
    """Agreement with the baseline's ranking, and identity against the baseline's."""
    against = compare(runs, "identity", BASELINE, seed=seed)
    arms = [*agreed, "random"]
    with house_style():
        figure = chart(
            8.6,
            0.3 * len(arms) + 0.8,
            title="Which step is profiled, and which blocks",
            note=f'Points: mean with its 95 % interval. The ranking of "{BASELINE}" is compared '
            "with the others.",
            selection=f"{model}, {len(runs) // runs['arm'].nunique()} runs an arm, equal "
            "token-steps, ranked beforehand",
        )
        left, right = figure.subplots(1, 2, sharey=True)
        for place, arm in enumerate(arms):
            for name, colour, shift in (("spearman", BLUE, -0.12), ("jaccard", ORANGE, 0.12)):
                if arm in agreed:
                    mean, low, high, _ = agreed[arm][name]
                    left.hlines(place + shift, low, high, color=colour, linewidth=2.4)
                    label = AGREEMENT[name] if place == 0 else None
                    left.plot(mean, place + shift, "o", color=colour, label=label)
            if arm in against.index:
                row = against.loc[arm]
                right.hlines(place, row["low"], row["high"], color=INK, linewidth=2.4)
                right.plot(row["difference"], place, "o", color=INK)
        right.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        left.set_yticks(range(len(arms)), arms)
        left.invert_yaxis()
        left.set(xlabel="Agreement of rankings", xlim=(min(0, left.get_xlim()[0]), 1.03))
        left.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
        right.locator_params(axis="x", nbins=5)
        right.set(xlabel=f"Identity minus that of {BASELINE}")
    return figure


RECIPE = Recipe(run, {"subjects": (50, 2), "prompts": (3, 1)}, arms=True, needs=("reference_mask",))
