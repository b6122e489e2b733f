"""Quality against speed: pruned, reused, refreshed and skipped, and how keys and values drift."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

import recast_probe as rp
from recast_probe.cost_model import RunPlan, TransformerConfig, config_of
from recast_probe.datasets import Case
from recast_probe.diagnostics.drift import Drift
from recast_probe.errors import InputError
from recast_probe.figures import plot_drift
from recast_probe.figures.style import GREY, INK, PALETTE, chart, house_style
from recast_probe.interventions import Intervention, Recast, ReuseReference, StepCache
from recast_probe.layout import TokenLayout
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import bench
from recast_probe.recipes.comparing import difference, run_arms, summarise
from recast_probe.recipes.page import Page, Section, corrected, higher, warned
from recast_probe.recipes.recipe import Recipe
from recast_probe.recipes.results import finish
from recast_probe.recipes.words import about, counted
from recast_probe.studies import markdown, means
from recast_probe.studies.comparison import Arm
from recast_probe.studies.tables import p_value, row_interval

FEWEST_STEPS = 8
DRIFTED = 4  # subjects whose drift is averaged
SIZES = {"subjects": (100, 2), "prompts": (2, 1), "steps": (28, 8)}
KINDS = ("random", "pruned", "reused", "reused, refreshed", "step cache", "fewer steps", "both")


def prepare(chosen: Any) -> None:
    """Check that the steps are enough to tell the arms apart.

    Raises:
        InputError: they are not.
    """
    if chosen.steps < FEWEST_STEPS:
        raise InputError(
            f"In {chosen.steps} steps the arms that skip or refresh some fall together; give "
            f"--steps {FEWEST_STEPS} or more."
        )


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Run what is missing, print the tables, write everything to --out."""
    layout = probe.layout(bench(chosen)[0].reference)
    arms = arms_for(layout.reference_tokens, chosen.steps)
    table, store = run_arms(chosen, probe, arms)
    rows = summarise(table, "full", chosen.seed)
    config = config_of(probe.family.transformer)
    bounds = {name: bound(config, layout, arm, chosen.steps) for name, arm in arms.items()}
    measured = speeds(table)
    errors = means(table, "target_error", seed=chosen.seed)
    for row in rows:
        row["target error"] = row_interval(errors.loc[row["arm"]])
        row["speed-up by FLOP"] = round(bounds[row["arm"]], 3)
        row["measured"] = f"{measured[row['arm']]:.2f}"
    print(markdown(rows))
    pairs = against(table, chosen.seed)
    print(f"\nArms against one another\n\n{markdown(pairs)}")
    drift = mean_drift(chosen, probe)
    drifts = drift_rows(drift)
    print(f"\nDrift of keys and values, mean over later steps\n\n{markdown(drifts)}")
    figures = {
        "front": draw(table, bounds, layout.reference_tokens, probe.name, chosen.seed),
        "drift": plot_drift(drift),
    }
    summary = {"table": rows, "pairs": pairs, "drift": drifts}
    finish(chosen, store, {"runs": table}, summary, figures, page_on(summary, table, chosen))
    return summary


def page_on(found: dict[str, Any], table: pd.DataFrame, chosen: Any) -> Page:
    """The page on what saves work, and at what loss."""
    names = [(row["arm"], row["against"]) for row in found["pairs"]]
    apart = corrected([difference(table, *pair, chosen.seed) for pair in names])
    says = [higher(*pair, each) for pair, each in zip(names, apart, strict=True)]
    kinds = ", ".join(dict.fromkeys(table["category"]))
    return Page(
        "Quality against speed: what saves work without losing the subject",
        [
            Section(
                text=f"{counted(table)} "
                f"Kinds of edit: {kinds}. Numbers after a colon are reference "
                f"tokens, or computed steps of {chosen.steps}. {about(table)} "
                '"speed-up by FLOP" is the bound from the model\'s config, "measured" the ratio of '
                'seconds in the same runs. "seconds" and "measured" are not a measurement of '
                "speed: other programs ran. Speed is measured in "
                "[performance](../performance.md).",
                rows=found["table"],
                figure="front",
                alt="Identity against the bound on speed-up",
            ),
            Section(
                "Arms against one another",
                "The first minus the second, pair by pair.",
                found["pairs"],
                says=says + warned(apart),
            ),
            Section(
                "How far keys and values move away",
                "Relative error of the reference's keys, values and attention output of one step "
                f"against those of later steps; mean over the first subjects, {DRIFTED} at most, "
                "and all blocks.",
                found["drift"],
                "drift",
                "Relative error of keys, values and outputs over the steps",
            ),
        ],
    )


def arms_for(tokens: int, steps: int) -> dict[str, Arm]:
    """Every arm by name; its kind stands before the colon."""
    half, quarter, eighth = (max(1, tokens // part) for part in (2, 4, 8))
    seventh, middle = max(steps // 4, 2), max(steps // 2, 2)
    counts = [max(3, round(steps * share)) for share in (5 / 7, 1 / 2, 5 / 14)]

    def arm(*interventions: Intervention) -> Arm:
        return Arm("interventions", given=interventions)

    arms = {"full": Arm("full"), "none": Arm("none")}
    arms |= {f"random: {count}": Arm("random", count) for count in (half, quarter)}
    arms |= {f"pruned: {count}": Arm("recast", count) for count in (half, quarter, eighth)}
    arms["reused: all"] = arm(ReuseReference())
    arms |= {f"reused: {count}": arm(Recast(count), ReuseReference()) for count in (half, quarter)}
    arms |= {
        f"reused: all, of step {step}": arm(ReuseReference(start=step + 1))
        for step in (seventh, middle)
    }
    arms["reused, refreshed: all, once"] = arm(ReuseReference(refresh=(middle,)))
    for every in (steps // 4, max(steps // 7, 2)):
        arms[f"reused, refreshed: all, every {every}"] = arm(ReuseReference(refresh=every))
    every = max(steps // 7, 2)
    for count in (half, quarter):
        interventions = Recast(count), ReuseReference(refresh=every)
        arms[f"reused, refreshed: {count}, every {every}"] = arm(*interventions)
    arms |= {f"step cache: {count}": arm(StepCache(count)) for count in counts}
    arms[f"fewer steps: {counts[1]}"] = Arm("full", steps=counts[1])
    cache = StepCache(max(counts[1], len(range(0, steps, every)) + 1))
    arms[f"both: reused every {every}, step cache"] = arm(ReuseReference(refresh=every), cache)
    arms["both: pruned, step cache"] = arm(Recast(quarter), StepCache(counts[1]))
    return arms


def bound(config: TransformerConfig, layout: TokenLayout, arm: Arm, steps: int) -> float:
    """FLOP of the full run over those of the arm."""
    sizes = (layout.text, layout.generation.size, layout.reference_tokens)
    full = RunPlan.full(*sizes, steps)
    plan = full if arm.steps is None else RunPlan.full(*sizes, arm.steps)
    if arm.method == "none":
        plan = plan.keep(0, start=0)
    if arm.budget is not None:
        plan = plan.keep(arm.budget)
    demanded: frozenset[int] = frozenset()
    for each in arm.given or ():
        if isinstance(each, Recast):
            plan = plan.keep(each.budget.tokens)
        if isinstance(each, ReuseReference):
            demanded = frozenset(each.storing_steps(steps))
            plan = plan.reuse(each.start, demanded)
        if isinstance(each, StepCache):
            plan = plan.compute(each.computed_steps(steps, demanded))
    return full.work(config).total / plan.work(config).total


def kind_of(arm: str) -> str:
    """What stands before the colon."""
    return arm.partition(":")[0]


def speeds(table: pd.DataFrame) -> pd.Series:
    """Median over the cases of the full run's seconds over the arm's, whole pipeline, by arm."""
    seconds = table.pivot(index=["subject", "prompt"], columns="arm", values="seconds")
    return (1 / seconds.div(seconds["full"], axis=0)).median()


def against(table: pd.DataFrame, seed: int) -> list[dict[str, Any]]:
    """Identity and target error of one arm minus those of another, pair by pair."""
    names = list(dict.fromkeys(table["arm"]))
    kinds = {kind: [name for name in names if kind_of(name) == kind] for kind in KINDS}
    dense, *fewer = kinds["reused"]
    pairs = list(zip(fewer[:2], kinds["pruned"][:2], strict=True))
    pairs += [(dense, kinds["pruned"][0]), (dense, kinds["pruned"][1])]
    refreshed = kinds["reused, refreshed"]
    pairs += [(name, dense) for name in [*fewer[2:], *refreshed] if ": all" in name]
    pairs += list(zip(refreshed[-2:], kinds["pruned"][:2], strict=True))
    pairs += [(kinds["step cache"][1], kinds["fewer steps"][0])]
    rows = [{"arm": one, "against": other} for one, other in pairs]
    for value in ("identity", "target_error"):
        apart = corrected([difference(table, *pair, seed, value) for pair in pairs])
        for row, found in zip(rows, apart, strict=True):
            row[value.replace("_", " ")] = row_interval(found)
            row[f"p ({value.replace('_', ' ')}, Holm)"] = p_value(found["p_holm"])
    return rows


def mean_drift(chosen: Any, probe: Probe) -> Drift:
    """Mean over the first subjects, from step 0, a quarter of the run and its middle."""
    sources = sorted({0, chosen.steps // 4, chosen.steps // 2})
    first: dict[str, Case] = {}
    for case in bench(chosen):
        first.setdefault(case.subject, case)
    found = [
        rp.drift(
            probe,
            case.reference,
            case.prompt,
            chosen.steps,
            case.seed,
            sources=sources,
            progress=False,
        )
        for case in list(first.values())[:DRIFTED]
    ]
    together = xr.concat([each.errors for each in found], "subject").mean("subject")
    return Drift(together, f"{found[0].selection}, mean of {len(found)} subjects")


def drift_rows(drift: Drift) -> list[dict[str, Any]]:
    """By source: mean error in the next step, in the last one, and over all later ones."""
    errors = drift.errors.sel(branch="conditional").mean("block")
    return [
        {
            "source step": int(source),
            "quantity": name,
            "next step": round(float(errors[name].sel(source=source, step=source + 1)), 3),
            "last step": round(float(errors[name].sel(source=source).isel(step=-1)), 3),
            "mean": round(float(errors[name].sel(source=source).mean("step")), 3),
        }
        for source in np.asarray(errors["source"])
        for name in ("key", "value", "output")
    ]


def series(names: list[str]) -> list[str]:
    """Of arms of one kind, those that differ in their number of tokens or of steps only."""
    settings = {name: name.partition(": ")[2].partition(", ") for name in names}
    counted = {n: more for n, (count, _, more) in settings.items() if " " not in count}
    usual = Counter(counted.values()).most_common(1)[0][0] if counted else ""
    return [name for name, more in counted.items() if more == usual]


def draw(
    table: pd.DataFrame, bounds: dict[str, float], tokens: int, model: str, seed: int
) -> Figure:
    """Identity against the FLOP ratio; lines join arms that differ in the number of tokens or of
    computed steps only."""
    found = means(table, "identity", seed=seed)
    with house_style():
        figure = chart(
            8.4,
            4.4,
            title="Identity against speed",
            note="Means with 95 % intervals; numbers: tokens kept, or computed steps. Dotted: all "
            f"{tokens} tokens, and none.",
            selection=f"{model}, {len(table) // len(found)} runs an arm, speed-up by FLOP",
        )
        axes = figure.subplots()
        for kind, colour in zip(KINDS, (*PALETTE, GREY), strict=True):
            names = [name for name in bounds if kind_of(name) == kind]
            speed = [bounds[name] for name in names]
            mean = found.loc[names, "mean"]
            error = [mean - found.loc[names, "low"], found.loc[names, "high"] - mean]
            axes.errorbar(
                speed, mean, np.array(error), fmt="o", color=colour, label=kind, elinewidth=0.9
            )
            joined = series(names)
            axes.plot(
                [bounds[name] for name in joined],
                found.loc[joined, "mean"],
                color=colour,
                linewidth=1.4,
            )
            for name in joined if len(joined) > 1 else ():
                axes.annotate(
                    name.partition(": ")[2].partition(",")[0],
                    (bounds[name], found.loc[name, "mean"]),
                    (-4, -9) if kind == "pruned" else (4, 4),
                    textcoords="offset points",
                    ha="right" if kind == "pruned" else "left",
                    size=7,
                    color=colour,
                )
        for arm in ("full", "none"):
            axes.axhline(found.loc[arm, "mean"], color=INK, linewidth=0.8, linestyle=":")
        axes.set(xlabel="Speed-up of the transformer by FLOP", ylabel="Masked MobileNetV2 cosine")
        axes.xaxis.set_major_formatter("{x:g}x")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


RECIPE = Recipe(run, SIZES, prepare=prepare, needs=("target",))
