"""Which blocks and heads the image needs for reading the reference, and how these attend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from recast_probe.datasets import Case
from recast_probe.diagnostics import Interval, reading
from recast_probe.experiments.attribution import attribution
from recast_probe.experiments.attribution_result import related
from recast_probe.figures import plot_heads
from recast_probe.figures.style import INK, chart, house_style
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import bench
from recast_probe.recipes.faithfulness import MASKS, identity
from recast_probe.recipes.page import Page, Section
from recast_probe.recipes.recipe import Recipe
from recast_probe.recipes.results import finish, open_store
from recast_probe.recipes.words import cases_in_words
from recast_probe.studies import Outcome, Unit, markdown, run_study
from recast_probe.studies.comparison import units
from recast_probe.studies.engine.options import end_of_shard, engine_options
from recast_probe.studies.resampling import bootstrap
from recast_probe.studies.tables import with_interval

ARMS = ("block", "head", "reading")
VALUES = ("effect", "distance")
SHOWN = 8

ENDS = {"": "mean", "_low": "low", "_high": "high", "_subjects": "count"}


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Run what is missing, print the tables, write everything to --out."""
    store = open_store(chosen, probe, edge=["reference", "generation"], removal="renormalised")
    measure = Measure(probe, chosen.steps)
    cases, where = units(bench(chosen)), engine_options(chosen)
    tables = {arm: run_study(cases, [arm], measure, store, **where) for arm in ARMS}
    end_of_shard(chosen, store)
    blocks, heads = (gathered(tables[arm], chosen.seed) for arm in ("block", "head"))
    features = gathered(tables["reading"], chosen.seed)
    related_heads = related(heads, features)
    found = {
        "blocks": rows_of(blocks),
        "heads": rows_of(heads, features)[:SHOWN],
        "relation": [
            {
                "of a head": row["value"],
                "goes with": row["feature"].replace("_", " "),
                "Spearman": with_interval(row["spearman"], row["low"], row["high"], row["count"]),
            }
            for row in related_heads.to_dict("records")
        ],
    }
    for name, rows in found.items():
        print(f"\n{name.capitalize()}\n\n{markdown(rows)}")
    selection = (
        f"{probe.name}, reference to generation cut, renormalised, "
        f"{len(tables['head'])} cases, {chosen.steps} steps"
    )
    figures = {"heads": draw_heads(heads, selection), "blocks": draw_blocks(blocks, selection)}
    findings = {
        f"{row['value']} with {row['feature']}".replace(" ", "_"): {
            "mean": row["spearman"],
            **{name: row[name] for name in ("low", "high", "count")},
        }
        for row in related_heads.to_dict("records")
    }
    page = page_on(found, tables["head"], chosen.steps)
    finish(chosen, store, tables, found | {"findings": findings}, figures, page)
    return found


def page_on(found: dict[str, Any], runs: pd.DataFrame, steps: int) -> Page:
    """The page on heads that read the reference."""
    return Page(
        "Which heads copy?",
        [
            Section(
                text=f"{cases_in_words(runs)}, {steps} steps. The edge from "
                "reference to generation is cut in one block, or one head, through all steps. "
                "Information is the mutual information between where a generation token is and "
                "where it looks in the reference: high where every place looks at a place of its "
                "own, which is what copying needs; 0 where all look alike, which is broadcasting. "
                "Mass is the share of the generation tokens' attention that goes to the reference.",
                rows=found["blocks"],
                figure="blocks",
                alt="Loss of identity with each block cut",
            ),
            Section(
                "Heads",
                f"The {SHOWN} whose cut loses the most.",
                found["heads"],
                "heads",
                "Loss of identity with each head cut",
            ),
            Section(
                "How the effect of a head goes with the way it attends",
                "Over all heads; whole blocks are left out for the interval.",
                found["relation"],
            ),
        ],
    )


class Measure:
    """Attribution of one case over blocks or heads, or how its heads read; see `run_study`.

    Columns are a value and a place, such as "effect 3.1" (block 3, head 1) or "distance 3".
    """

    def __init__(self, probe: Probe, steps: int) -> None:
        self.probe, self.steps = probe, steps

    def __call__(self, unit: Unit, arms: Sequence[str]) -> Iterator[Outcome]:
        case: Case = unit.payload
        for arm in arms:
            data = self.reading(case) if arm == "reading" else self.attribution(case, arm)
            yield Outcome(arm, flat(data))

    def reading(self, case: Case) -> xr.Dataset:
        """How every head reads the reference."""
        profile = self.probe.profile(
            case.reference, case.prompt, self.steps, case.seed, progress=False
        )
        return reading(profile)

    def attribution(self, case: Case, over: str) -> xr.Dataset:
        """What every block or head does to identity and latents."""
        found = attribution(
            self.probe,
            case.reference,
            case.prompt,
            identity(case),
            over=over,
            steps=self.steps,
            seeds=(case.seed,),
            progress=False,
        )
        return found.data[list(VALUES)]


def flat(data: xr.Dataset) -> dict[str, float]:
    """One number a column; the inverse of `gathered`."""
    columns = {}
    for name, values in data.items():
        for place in np.ndindex(values.shape):
            labels = [str(values[dim].values[i]) for dim, i in zip(values.dims, place, strict=True)]
            columns[f"{name} {'.'.join(labels)}"] = float(values.values[place])
    return columns


def gathered(table: pd.DataFrame, seed: int) -> xr.Dataset:
    """Means over subjects, with _low and _high of their intervals, by block or block and head."""
    parts: dict[str, dict[tuple[int, ...], Interval]] = {}
    for column in table.columns:
        name, _, place = column.rpartition(" ")
        if not name or not place.replace(".", "").isdecimal():
            continue
        labels = tuple(int(part) for part in place.split("."))
        groups = [group.to_numpy(np.float64) for _, group in table.groupby("subject")[column]]
        parts.setdefault(name, {})[labels] = bootstrap(groups, seed=seed)
    found = {}
    for name, places in parts.items():
        dims = ("block", "head")[: len(next(iter(places)))]
        labels_of = [sorted({place[axis] for place in places}) for axis in range(len(dims))]
        for suffix, end in ENDS.items():
            values = np.full([len(each) for each in labels_of], np.nan)
            for place, interval in places.items():
                at = tuple(labels.index(p) for labels, p in zip(labels_of, place, strict=True))
                values[at] = getattr(interval, end)
            coordinates = dict(zip(dims, labels_of, strict=True))
            found[f"{name}{suffix}"] = xr.DataArray(values, coords=coordinates, dims=dims)
    whole = xr.Dataset(found)
    # intervals of how a head reads are not used
    return whole if "effect" in whole else whole[list(parts)]


def rows_of(data: xr.Dataset, features: xr.Dataset | None = None) -> list[dict[str, Any]]:
    """One row a block or head, the largest loss of identity first."""
    effect = data["effect"]
    rows = []
    for place in np.argsort(-effect.values.ravel(), kind="stable"):
        at = dict(zip(effect.dims, np.unravel_index(place, effect.shape), strict=True))
        here = data.isel(at)
        row: dict[str, Any] = {str(dim): int(here[dim]) for dim in effect.dims}
        for name, words in (("effect", "loss of identity"), ("distance", "latent distance")):
            mean, low, high, count = (float(here[f"{name}{end}"]) for end in ENDS)
            row[words] = with_interval(mean, low, high, count)
        if features is not None:
            labels = {dim: here[dim] for dim in effect.dims}
            for name, words in (("mass", "mass"), ("information", "information, bits")):
                row[words] = round(float(features[name].sel(labels)), 3)
        rows.append(row)
    return rows


def draw_heads(heads: xr.Dataset, selection: str) -> Figure:
    """Mean loss of identity of every head."""
    return plot_heads(
        heads["effect"],
        label="Loss of identity",
        title="What each head does for the subject",
        note="Masked MobileNetV2 cosine of the full run minus that with this head cut; means.",
        selection=selection,
    )


def draw_blocks(blocks: xr.Dataset, selection: str) -> Figure:
    """Loss of identity and latent distance of every block, with intervals."""
    with house_style():
        figure = chart(
            8.4,
            3.2,
            title="What each block does for the subject",
            note="Mean over subjects with its 95 % interval; reference to generation cut there.",
            selection=selection,
        )
        labels = {"effect": "Loss of identity", "distance": "Distance of latents from the full run"}
        for axes, (name, label) in zip(figure.subplots(1, 2), labels.items(), strict=True):
            places = blocks["block"].values
            axes.axhline(0, color=INK, linewidth=0.8, linestyle=":")
            axes.vlines(
                places, blocks[f"{name}_low"], blocks[f"{name}_high"], color=INK, linewidth=2.4
            )
            axes.plot(places, blocks[name], "o", color=INK)
            axes.set(xlabel="Block", ylabel=label)
    return figure


RECIPE = Recipe(run, {"subjects": (20, 2), "prompts": (1, 1), "steps": (16, 2)}, needs=MASKS)
