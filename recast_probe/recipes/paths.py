"""Which path carries what: edges between text, generation and reference cut, one after the other.

Identity and colour are of edits of the reference's subject, of a local edit to its target; style
is the distance to the true target where another subject is to be drawn in the reference's style.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from recast_probe.attention.cuts import REMOVALS
from recast_probe.figures.style import BLUE, GREEN, INK, ORANGE, chart, house_style
from recast_probe.interventions import Knockout
from recast_probe.pocket.bench import CATEGORIES
from recast_probe.probe import Probe
from recast_probe.recipes.comparing import run_arms
from recast_probe.recipes.page import Page, Section, ends, too_few
from recast_probe.recipes.recipe import Recipe
from recast_probe.recipes.results import finish
from recast_probe.recipes.words import counted
from recast_probe.studies import compare, markdown, means
from recast_probe.studies.comparison import Arm, PlannedArm
from recast_probe.studies.reference_gain import gain_interval
from recast_probe.studies.statistics import UNITS, by_subject, paired
from recast_probe.studies.tables import p_value, row_interval, with_interval

EVERYTHING = "reference to all"
PATHS: dict[str, tuple[tuple[str, str], ...]] = {
    "reference to generation": (("reference", "generation"),),
    "reference to text": (("reference", "text"),),
    "reference to padding": (("reference", "padding"),),
    "padding to generation": (("padding", "generation"),),
    "generation to reference": (("generation", "reference"),),
    "text to reference": (("text", "reference"),),
    "both to reference": (("generation", "reference"), ("text", "reference")),
    EVERYTHING: (("reference", "generation"), ("reference", "text")),
}
STYLE = CATEGORIES[3]
# what is lost, by column of the runs and whether style cases are meant; larger is worse or better
CARRIED = {
    "shape": ("identity", False, 1),
    "colour": ("colour", False, 1),
    "target": ("target_error", False, -1),
    "style": ("target_error", True, -1),
}
COLOURS = {"shape": BLUE, "colour": ORANGE, "target": INK, "style": GREEN}


def prepare(chosen: Any) -> None:
    """Take PocketBench's four kinds of edits in turns."""
    chosen.categories = CATEGORIES


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Run what is missing, print the tables, write everything to --out."""
    arms: dict[str, Arm | PlannedArm] = {"full": Arm("full")}
    arms |= {name: planned(edges, chosen.removal) for name, edges in PATHS.items()}
    table, store = run_arms(chosen, probe, arms)
    found = {"table": losses(table, chosen.seed), "shares": shares(table, chosen.seed)}
    print(markdown(found["table"]))
    print(f"\nShare of what is lost with {EVERYTHING} cut\n")
    print(
        markdown([{name: words(value) for name, value in row.items()} for row in found["shares"]])
    )
    drawn = draw(
        found["shares"], f"{probe.name}, {chosen.removal}, {len(table) // len(arms)} cases"
    )
    findings = {
        f"{name}_lost_with_{cut.replace(' ', '_')}": dict(
            zip(("mean", "low", "high", "count"), row[name], strict=True)
        )
        for row in found["shares"]
        for cut in (row["cut"],)
        for name in CARRIED
        if row.get(name) is not None
    }
    page = page_on(found, findings, table, chosen)
    finish(chosen, store, {"runs": table}, found | {"findings": findings}, {"paths": drawn}, page)
    return found


def page_on(
    found: dict[str, Any], findings: dict[str, Any], table: pd.DataFrame, chosen: Any
) -> Page:
    """The page on what each path carries."""
    says, few = [], too_few(table["subject"].nunique(), len(PATHS))
    for name in CARRIED:
        direct, text = (
            findings.get(f"{name}_lost_with_reference_to_{group}")
            for group in ("generation", "text")
        )
        if direct and text:
            says.append(
                f"{name.capitalize()}: the direct edge to the generation carries {ends(direct)} of "
                f"it, the edge to the text {ends(text)}."
            )
    return Page(
        "Which path carries what: cutting edges",
        [
            Section(
                text=f"{counted(table)} "
                f'{chosen.steps} steps. An edge "reference to generation" cut '
                "means that generation tokens no longer see reference tokens, in all blocks, heads "
                "and steps; keys are left out of the softmax and the rest is "
                f"{chosen.removal}. Shape (MobileNetV2 identity), colour and target error are of "
                "edits that keep the subject; style is the distance to the true target where "
                "another subject is drawn in the reference's style. Shares are of what is lost "
                "when neither text nor generation sees the reference, and not defined where that "
                "is not shown to be anything; those of different cuts need not add up to 1, since "
                "one path may stand in for another.",
                rows=[{k: words(v) for k, v in row.items()} for row in found["shares"]],
                figure="paths",
                alt="Share of shape, colour and style that is lost with each path cut",
                says=says,
            ),
            Section(
                "The scores themselves",
                f"p-values are corrected after Holm over the cuts. {few}".strip(),
                found["table"],
            ),
        ],
    )


def planned(edges: tuple[tuple[str, str], ...], removal: str) -> PlannedArm:
    """An arm that cuts edges in all blocks, heads and steps."""
    cuts = [Knockout(*edge, removal=removal) for edge in edges]  # type: ignore[arg-type]
    return PlannedArm({"knockouts": [cut.describe() for cut in cuts]}, lambda case: list(cuts))


def cases(table: pd.DataFrame, style: bool) -> pd.DataFrame:
    """The runs of style cases, or of all others."""
    return table[(table["category"] == STYLE) == style]


def losses(table: pd.DataFrame, seed: int) -> list[dict[str, Any]]:
    """One row an arm: every score, and its paired difference to the full run."""
    rows: list[dict[str, Any]] = [{"cut": arm} for arm in ("nothing", *PATHS)]
    for name, (column, style, _) in CARRIED.items():
        runs = cases(table, style)
        if runs.empty:
            continue
        mean = means(runs, column, seed=seed)
        against = compare(runs, column, "full", seed=seed)
        for row in rows:
            arm = "full" if row["cut"] == "nothing" else row["cut"]
            heading = column.replace("_", " ") + (" (style)" if style else "")
            row[heading] = row_interval(mean.loc[arm])
            row[f"minus full, {name}"] = "-"
            if arm != "full":
                other = against.loc[arm]
                ends = row_interval(other, "difference")
                row[f"minus full, {name}"] = f"{ends}, p {p_value(other['p_holm'])}"
    return rows


def shares(table: pd.DataFrame, seed: int) -> list[dict[str, Any]]:
    """Of what is lost without any sight of the reference: the part that each cut loses.

    Means with the ends of their paired intervals; None where it is not known that anything is lost.
    Shares of different cuts need not add up to 1: one path may stand in for another.
    """
    rows: list[dict[str, Any]] = [{"cut": arm} for arm in PATHS if arm != EVERYTHING]
    for name, (column, style, sign) in CARRIED.items():
        runs = cases(table, style)
        if runs.empty:
            continue
        wide = paired(runs, column, "arm", UNITS)
        whole = by_subject(sign * (wide["full"] - wide[EVERYTHING]))
        for row in rows:
            lost = by_subject(sign * (wide["full"] - wide[row["cut"]]))
            share = gain_interval(lost, whole, seed=seed)
            told = [share.mean, share.low, share.high, share.count]
            row[name] = None if np.isnan(share.mean) else told
    return rows


def words(value: Any) -> Any:
    """A mean with its interval, or what it is."""
    if value is None:
        return "not defined"
    return with_interval(*value) if isinstance(value, list) else value


def draw(rows: list[dict[str, Any]], selection: str) -> Figure:
    """Share of shape, colour and style that each cut loses, with intervals."""
    names = [name for name in CARRIED if name in rows[0]]
    with house_style():
        figure = chart(
            8.4,
            0.5 * len(rows) + 1,
            title="What each path carries",
            note=(
                "Share that is lost with this path cut, of what is lost when nothing sees the "
                "reference; 95 % paired intervals over subjects."
            ),
            selection=selection,
        )
        axes = figure.subplots()
        for index, name in enumerate(names):
            places = np.arange(len(rows)) + (index - (len(names) - 1) / 2) * 0.18
            mean, low, high = np.array([(row[name] or [np.nan] * 3)[:3] for row in rows]).T
            axes.hlines(places, low, high, color=COLOURS[name], linewidth=2.4)
            axes.plot(mean, places, "o", color=COLOURS[name], label=name)
        for place in (0, 1):
            axes.axvline(place, color=INK, linewidth=0.8, linestyle=":")
        axes.set_yticks(np.arange(len(rows)), [row["cut"] for row in rows])
        axes.invert_yaxis()
        axes.set(xlabel="Share lost")
        axes.grid(False)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


RECIPE = Recipe(
    run,
    {"subjects": (40, 2), "prompts": (4, 4), "steps": (16, 3)},
    {"--removal": {"default": REMOVALS[0], "choices": REMOVALS}},
    prepare,
    needs=("target",),
)
