"""Does a reference strength work? Identity over factors on the attention to the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recast_probe.figures import plot_dose_response
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import bench, finder_of
from recast_probe.recipes.page import Page, Section, corrected, decided, ends, side, warned
from recast_probe.recipes.recipe import Recipe
from recast_probe.recipes.results import finish, open_store
from recast_probe.recipes.words import counted
from recast_probe.studies import markdown
from recast_probe.studies.dose_response import FACTORS, DoseResponse, dose_response
from recast_probe.studies.engine.options import end_of_shard, engine_options
from recast_probe.studies.tables import p_value, row_interval, with_interval

WORDS = {"identity": "identity", "target_error": "target error"}


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Run what is missing, print the tables, write everything to --out."""
    store = open_store(chosen, probe, factors={mode: list(each) for mode, each in FACTORS.items()})
    found = dose_response(
        probe,
        bench(chosen),
        factors=FACTORS,
        steps=chosen.steps,
        finder=finder_of(chosen),
        store=store,
        **engine_options(chosen),
    )
    end_of_shard(chosen, store)
    rows = {
        f"{group} by {mode}": curve_rows(found, group, mode, chosen.seed)
        for group, mode in found.lines
    }
    for name, table in rows.items():
        print(f"{name}\n{markdown(table)}\n")
    findings = findings_of(found, chosen.seed)
    figures = {"curves": plot_dose_response(found)}
    page = page_on(found, rows, chosen)
    finish(chosen, store, {"runs": found.runs}, {**rows, "findings": findings}, figures, page)
    return rows


def curve_rows(found: DoseResponse, group: str, mode: str, seed: int) -> list[dict[str, Any]]:
    """One row a factor: every score, and its paired difference to the run as it is."""
    rows: dict[float, dict[str, Any]] = {}
    for measure in found.measures:
        words = WORDS.get(measure, measure)
        for factor, point in found.curve(measure, group, mode, seed=seed).iterrows():
            row = rows.setdefault(float(factor), {"factor": f"{factor:g}"})  # type: ignore[arg-type]
            subjects = int(point["subjects"])
            row[words] = with_interval(
                point["mean"], point["mean_low"], point["mean_high"], subjects
            )
            row[f"{words} minus factor 1"] = row[f"p of {words} (Holm)"] = "-"
            if factor != 1:
                row[f"{words} minus factor 1"] = row_interval(point, "difference")
                row[f"p of {words} (Holm)"] = p_value(point["p_holm"])
    return list(rows.values())


def findings_of(found: DoseResponse, seed: int) -> dict[str, Any]:
    """Numbers for `--measured`: the differences, and how a score follows the factor."""
    numbers: dict[str, Any] = {}
    for group, mode in found.lines:
        for measure in found.measures:
            name = f"{measure}_with_{group}_{mode}"
            for factor, point in found.curve(measure, group, mode, seed=seed).iterrows():
                if factor != 1:
                    numbers[f"{name}_{factor:g}_above_1"] = {
                        "mean": point["difference"],
                        **{key: point[key] for key in ("low", "high", "p_value", "subjects")},
                    }
            numbers[f"{name}_trend"] = found.trend(measure, group, mode).to_dict()
    return numbers


def page_on(found: DoseResponse, rows: dict[str, list[dict[str, Any]]], chosen: Any) -> Page:
    """The page on the strength of the reference."""
    sections = [
        Section(
            text=f"{counted(found.runs)} {chosen.steps} steps. `Weigh` multiplies the attention "
            "that generation tokens pay the reference, in all blocks, heads and steps. By bias, "
            "the odds of every reference token are multiplied: 0 cuts them, 2 is what two copies "
            "of each would have. By scale, the logits are: 0 makes the reference's tokens alike, "
            "2 sharpens what each looks at and moves attention to the reference or away from it, "
            "as the logits' signs have it. A factor of 1 is the run as it is, bit for bit.",
            figure="curves",
            alt="Identity and target error over factors, with paired intervals",
        )
    ]
    for group, mode in found.lines:
        curves = {each: found.curve(each, group, mode, seed=chosen.seed) for each in found.measures}
        points = changes(curves)
        says = []
        for measure in found.measures:
            words = WORDS.get(measure, measure)
            trend = found.trend(measure, group, mode).to_dict()
            where = {1: "above 0", -1: "below 0", 0: "not told apart from 0"}[side(trend)]
            says.append(
                f"The rank correlation of {words} with the factor, taken in each case, is {where}: "
                f"mean {ends(trend)}."
            )
            says += _says(words, {f: each for (name, f), each in points.items() if name == measure})
        says += warned(list(points.values()))
        sections.append(
            Section(f"The {group}, by {mode}", rows=rows[f"{group} by {mode}"], says=says)
        )
    return Page("Dose and response: a strength for the reference", sections)


def changes(curves: Mapping[str, Any]) -> dict[tuple[str, float], dict[str, Any]]:
    """By measure and factor, the difference to the run as it is, corrected over all of them."""
    names = ("low", "high", "p_value", "p_holm", "subjects")
    found = {
        (measure, float(factor)): {"mean": float(point["difference"])}
        | {name: float(point[name]) for name in names}
        for measure, curve in curves.items()
        for factor, point in curve.iterrows()
        if factor != 1
    }
    return dict(zip(found, corrected(list(found.values())), strict=True))


def _says(words: str, points: Mapping[float, dict[str, Any]]) -> list[str]:
    """At which factors a score is below, above, or not told apart from the run as it is."""
    said = []
    for way, how in ((-1, "below"), (1, "above"), (0, "not told apart from")):
        factors = [f"{factor:g}" for factor, point in points.items() if decided(point) == way]
        if factors:
            listed = " and ".join(filter(None, (", ".join(factors[:-1]), factors[-1])))
            plural = "s" if len(factors) > 1 else ""
            said.append(
                f"{words.capitalize()} at the factor{plural} {listed} is {how} that of the run as "
                "it is."
            )
    return said


RECIPE = Recipe(run, sizes={"subjects": (24, 2), "prompts": (1, 1), "steps": (8, 2)})
