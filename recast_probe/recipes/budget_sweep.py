"""Identity against the number of reference tokens, in tokens and in FLOP (Section 3.4)."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from recast_probe.cost_model import config_of, run_work
from recast_probe.figures.style import INK, arm_colours, chart, house_style
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import bench
from recast_probe.recipes.comparing import (
    add_set_distances,
    difference,
    metric_name,
    run_arms,
    summarise,
)
from recast_probe.recipes.page import Page, Section, corrected, higher, warned
from recast_probe.recipes.recipe import Recipe
from recast_probe.recipes.results import finish
from recast_probe.recipes.words import about, counted
from recast_probe.studies import markdown, means
from recast_probe.studies.comparison import Arm

SHARES = (1 / 2, 1 / 4, 1 / 8, 1 / 16)  # of 4,096 tokens: the paper's 2,048 to 256
METHODS = ("recast", "random", "merge")


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Run what is missing, print the table, write everything to --out."""
    layout = probe.layout(bench(chosen)[0].reference)
    counts = [max(1, round(layout.reference_tokens * share)) for share in SHARES]
    arms = {"full": Arm("full"), "none": Arm("none")}
    arms |= {f"{name} {count}": Arm(name, count) for name in METHODS for count in counts}
    table, store = run_arms(chosen, probe, arms)
    config = config_of(probe.family.transformer)

    def speed(tokens: list[int]) -> float:
        whole, less = (
            run_work(config, layout.text, layout.generation.size, each).total
            for each in ([layout.reference_tokens] * chosen.steps, tokens)
        )
        return whole / less

    rows = summarise(table, "full", chosen.seed)
    for row in rows:
        name, _, count = row["arm"].partition(" ")
        tokens = {"full": layout.reference_tokens, "none": 0}.get(name, int(count or 0))
        first = 0 if name == "none" else layout.reference_tokens
        row["speed-up by FLOP"] = round(speed([first] + [tokens] * (chosen.steps - 1)), 3)
    add_set_distances(rows, chosen, store)
    print(markdown(rows))
    found = means(table, "identity", seed=chosen.seed)
    curves = {name: [found.loc[f"{name} {count}"] for count in counts] for name in METHODS}
    speeds = {row["arm"]: row["speed-up by FLOP"] for row in rows}
    figures = {"budget": draw(curves, counts, speeds, found, probe.name, metric_name(table))}
    pairs = [(count, other) for count in counts for other in ("full", f"random {count}")]
    apart = corrected(
        [difference(table, f"recast {count}", other, chosen.seed) for count, other in pairs]
    )
    says = [
        f"{count} of {layout.reference_tokens} tokens: " + higher(f"recast {count}", other, each)
        for (count, other), each in zip(pairs, apart, strict=True)
    ]
    page = Page(
        "How many tokens?",
        [
            Section(
                text=f"{counted(table)} "
                "The same number of tokens in every step from step 1 on. The "
                "paper's 2,048, 1,024, 512 and 256 of 4,096 are "
                f"{', '.join(map(str, counts))} of {layout.reference_tokens} here. {about(table)} "
                '"speed-up by FLOP" is the bound from the model\'s config.',
                rows=rows,
                figure="budget",
                alt="Identity against the number of tokens and the bound on speed",
                says=says + warned(apart),
            )
        ],
    )
    finish(chosen, store, {"runs": table}, {"table": rows}, figures, page)
    return {"table": rows}


def draw(
    curves: dict[str, list[Any]],
    counts: list[int],
    speeds: dict[str, float],
    found: Any,
    model: str,
    metric: str,
) -> Figure:
    """Identity against tokens and against the bound on speed-up, with intervals."""
    with house_style():
        figure = chart(
            8.4,
            3.6,
            title="Identity against the budget",
            note="Points: mean with its 95 % interval. Lines: all tokens, and none.",
            selection=f"{model}, step 0 in full",
        )
        colours = arm_colours(list(curves))
        panels = figure.subplots(1, 2, sharey=True)
        for name, points in curves.items():
            places = (counts, [speeds[f"{name} {count}"] for count in counts])
            for axes, place in zip(panels, places, strict=True):
                low, high = ([row[end] for row in points] for end in ("low", "high"))
                mean = [row["mean"] for row in points]
                axes.fill_between(place, low, high, color=colours[name], alpha=0.15, linewidth=0)
                axes.plot(place, mean, "o-", color=colours[name], label=name)
        for axes in panels:
            for arm in ("full", "none"):
                axes.axhline(found.loc[arm, "mean"], color=INK, linewidth=0.8, linestyle=":")
        panels[0].set_xscale("log", base=2)
        panels[0].set_xticks(counts, counts)
        panels[0].set(
            xlabel="Reference tokens a step", ylabel=metric.removesuffix(" to the reference")
        )
        panels[1].set(xlabel="Speed-up of the transformer by FLOP")
        panels[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


RECIPE = Recipe(run, metrics=True)
