"""Does a reference strength work? Identity over factors on the attention to the reference."""

from __future__ import annotations

from typing import Any

from recast_probe.figures import plot_dose_response
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import bench, finder_of
from recast_probe.recipes.comparing import counted
from recast_probe.recipes.page import Page, Section, decided, ends
from recast_probe.recipes.recipe import Recipe
from recast_probe.recipes.results import finish, open_store
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
        says = []
        for measure in found.measures:
            words = WORDS.get(measure, measure).capitalize()
            trend = found.trend(measure, group, mode).to_dict()
            side = {1: "rises", -1: "falls", 0: "neither rises nor falls clearly"}[decided(trend)]
            says.append(
                f"{words} {side} with the factor (Spearman correlation in each case, mean "
                f"{ends(trend)})."
            )
            for factor, point in found.curve(measure, group, mode, seed=chosen.seed).iterrows():
                if factor in (0.5, 2):
                    says.append(_says(words, float(factor), point))  # type: ignore[arg-type]
        sections.append(
            Section(f"The {group}, by {mode}", rows=rows[f"{group} by {mode}"], says=says)
        )
    return Page("Dose and response: a strength for the reference", sections)


def _says(words: str, factor: float, point: Any) -> str:
    number = {"mean": point["difference"], "low": point["low"], "high": point["high"]}
    side = {1: "above", -1: "below", 0: "not told apart from"}[decided(number)]
    return f"{words} at factor {factor:g} is {side} that of the run as it is: {ends(number)}."


RECIPE = Recipe(run, sizes={"subjects": (24, 2), "prompts": (1, 1), "steps": (8, 2)})
