"""Figure 3: images side by side, of subjects that a rule chooses.

The rule: in each category, cases are put in order of what ReCAST loses against the full run
(identity of ReCAST minus identity of the full run), and those at fixed quantiles of that order are
shown. Nobody chooses a picture. `--table` takes the runs of Table 1 instead of making new ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from recast_probe.datasets import Case
from recast_probe.figures import plot_images
from recast_probe.probe import Probe
from recast_probe.recipes import table_1
from recast_probe.recipes.benchmark import bench
from recast_probe.recipes.comparing import run_arms
from recast_probe.recipes.page import Page, Section
from recast_probe.recipes.recipe import Recipe
from recast_probe.recipes.results import finish
from recast_probe.studies import Store, Unit, markdown
from recast_probe.studies.comparison import units
from recast_probe.studies.engine.unit_runs import record_key

SHOWN = ("full", "recast", "self-attention", "merge", "random", "none")
QUANTILES = (0.1, 0.5, 0.9)
NAMED = ("subject", "prompt", "category")
"""Columns that name a case."""
TABLE = {
    "--table": {
        "type": Path,
        "help": "folder of a `table_1` with the same model, steps and seed, whose runs are shown",
    }
}


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Run what is missing, print what is shown, write everything to --out."""
    arms = table_1.table_arms(probe, chosen)
    if chosen.table is None:
        arms = {name: arms[name] for name in SHOWN}
    runs, store = run_arms(chosen, probe, arms, folder=chosen.table)
    picked = pick(runs)
    known = {tuple(unit.labels[name] for name in NAMED): unit for unit in units(bench(chosen))}
    shown = [
        (known[label], identities)
        for label, identities in zip(picked.index, picked.to_dict("records"), strict=True)
    ]
    rows = [
        {name: getattr(unit.payload, name) for name in ("category", "subject", "prompt")}
        | {arm: round(float(identities[arm]), 3) for arm in SHOWN}
        for unit, identities in shown
    ]
    print(markdown(rows))
    figures = {"qualitative": draw(shown, store, f"{probe.name}, {len(known)} cases")}
    page = Page(
        "Images side by side",
        [
            Section(
                text="A rule chooses what is shown: in each kind of edit, cases are put in order "
                "of what ReCAST loses against the full run, and those at the quantiles "
                f"{', '.join(f'{q:g}' for q in QUANTILES)} of that order are drawn. Numbers are "
                "identity.",
                rows=rows,
                figure="qualitative",
                alt="Reference and outputs of every arm, of cases chosen by the rule",
            )
        ],
    )
    summary = {"table": rows, "quantiles": QUANTILES}
    finish(chosen, store, {"runs": runs}, summary, figures, page)
    return {"table": rows}


def pick(runs: pd.DataFrame) -> pd.DataFrame:
    """The cases at the quantiles of every category, worst loss first.

    Returns:
        Identity by case (subject, prompt, category) and arm.
    """
    wide = runs.pivot(index=list(NAMED), columns="arm", values="identity")
    loss = (wide["recast"] - wide["full"]).rename("loss")
    chosen = []
    for _, part in loss.groupby("category", sort=False):
        # ties are broken by name, so that the choice is the same in every run
        order = part.reset_index().sort_values(["loss", "subject", "prompt"]).index
        places = dict.fromkeys(round(quantile * (len(order) - 1)) for quantile in QUANTILES)
        chosen += [part.index[order[place]] for place in places]
    return wide.loc[chosen]


def draw(shown: list[Any], store: Store, selection: str) -> Figure:
    """One row a case: the reference, what each arm made of it, the true target."""
    rows, captions, prompts = [], [], []
    for unit, identities in shown:
        case: Case = unit.payload
        made = {arm: stored_image(store, unit, arm) for arm in SHOWN}
        rows.append({"reference": case.reference, **made, **target_of(case)})
        captions.append({arm: f"{identities[arm]:.2f}" for arm in SHOWN})
        prompts.append(f"{case.category}: {case.prompt}")
    places = ", ".join(f"{quantile:.0%}" for quantile in QUANTILES)
    return plot_images(
        rows,
        prompts,
        captions=captions,
        title="The same prompts and noise, method by method",
        selection=f"{selection}; shown are those at the quantiles {places} of ReCAST's loss of "
        "identity, in each category. Numbers: masked MobileNetV2 cosine to the reference",
        side=1.05,
    )


def stored_image(store: Store, unit: Unit, arm: str) -> Image.Image:
    """The image that a run left."""
    record = store.load(record_key(unit, arm))
    assert record is not None  # the study is complete
    return record.image()


def target_of(case: Case) -> dict[str, Image.Image]:
    """The true answer, where the benchmark has one."""
    target = getattr(case, "target", None)
    return {} if target is None else {"true target": target}


RECIPE = Recipe(run, {"subjects": (30, 2)}, TABLE)
