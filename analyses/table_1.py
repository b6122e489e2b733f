"""Table 1: ReCAST against every baseline at equal token-steps, with intervals and p-values.

`--categories` adds PocketBench's "style reference", where the prompt names another subject than the
reference's. Identity means nothing there, so these cases stay out of the table and of the paper's
order; by category they are judged by their distance to the true target, and by colour. Identity
and colour of a local edit are compared with its true target, since those to the reference would
reward an output that ignores the prompt.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pandas as pd

from analyses.command import finish, parse
from analyses.comparing import (
    add_set_distances,
    bench,
    difference,
    figure,
    kept_by,
    run_arms,
    summarise,
)
from recast_probe import budget
from recast_probe._utils.ending import run_program
from recast_probe.commands.common import open_probe
from recast_probe.errors import InputError
from recast_probe.pocket.bench import CATEGORIES
from recast_probe.probe import Probe
from recast_probe.studies import holm, markdown, means
from recast_probe.studies.comparison import Arm
from recast_probe.studies.scored_area import AGAINST, REFERENCE, TARGET
from recast_probe.studies.tables import p_value, row_interval

PAPER_ORDER = ("recast", "self-attention", "merge", "random")
FLAT = "recast, flat budget"
STYLE = CATEGORIES[3]
# of a category, beside or in the place of identity; local edits against their target
MEASURES = {
    CATEGORIES[2]: ("identity", "colour", "target_error"),
    STYLE: ("target_error", "colour"),
}
OPTIONS = {
    "--categories": {
        "nargs": "+",
        "choices": CATEGORIES,
        "help": f"of PocketBench, in turns over the prompts; by default all but {STYLE!r}",
    }
}


def main(arguments: list[str] | None = None) -> dict:
    """Run what is missing, print the table, write everything to --out."""
    chosen = parse(__doc__, "table_1", arguments, options=OPTIONS, metrics=True)
    if chosen.categories and len(chosen.categories) > chosen.prompts:
        raise InputError(
            f"{len(chosen.categories)} categories take turns over {chosen.prompts} prompts, so "
            f"some would have none: give --prompts {len(chosen.categories)} or more."
        )
    probe = open_probe(chosen.model, chosen.dtype, chosen.device)
    table, store = run_arms(chosen, probe, table_arms(probe, chosen))
    named = table[table["category"] != STYLE]
    if named.empty:
        raise InputError(f"Table 1 compares identity; add other categories than {STYLE!r}.")
    categories = by_category(table, chosen.seed)
    found = {
        "table": summarise(named, "random", chosen.seed),
        "order": paper_order(named, chosen.seed),
        "categories": wide(categories),
    }
    add_set_distances(found["table"], chosen, store)
    print(markdown(found["table"]))
    print(f"\nDoes the paper's order hold?\n\n{markdown(found['order'])}")
    print(f"\nBy category\n\n{markdown(found['categories'])}")
    chart = figure(named, probe.name, chosen.seed, "equal token-steps")
    summary = found | {"measured": measured(named, chosen.seed)}
    summary["measured"] |= style_transfer(table, chosen.seed)
    finish(chosen, store, {"runs": table, "categories": categories}, summary, {"identity": chart})
    return found


def table_arms(probe: Probe, chosen: Any) -> dict[str, Arm]:
    """The arms of the table, by name."""
    tokens = probe.layout(bench(chosen)[0].reference).reference_tokens
    adaptive = budget.Adaptive.paper(tokens)
    names = ("self-attention", "cosine", "merge", "uniform", "random", "mask-oracle", "reversed")
    arms = {
        "full": Arm("full"),
        "recast": Arm("recast", adaptive),
        FLAT: Arm("recast", budget.flat(adaptive, chosen.steps, start=1)),
        **{name: Arm(name, adaptive) for name in names},
        "none": Arm("none"),
    }
    if chosen.no_mask_oracle:
        del arms["mask-oracle"]
    return arms


def paper_order(table: pd.DataFrame, seed: int) -> list[dict]:
    """Each method against the next one in the paper's order."""
    pairs = list(pairwise(PAPER_ORDER))
    differences = [difference(table, *pair, seed) for pair in pairs]
    corrected = holm([found["p_value"] for found in differences])
    rows = []
    for (better, worse), found, p in zip(pairs, differences, corrected, strict=True):
        verdict = "holds" if found["mean"] > 0 else "reversed"
        # both the corrected p-value and the interval must say so
        decided = p <= 0.05 and not found["low"] <= 0 <= found["high"]
        rows.append(
            {
                "claim": f"{better} above {worse}",
                "difference": row_interval(found),
                "p (Holm)": p_value(p),
                "effect size": found["effect_size"],
                "verdict": verdict if decided else "not decided",
            }
        )
    return rows


def by_category(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Mean of every arm in every category with its interval: category, measure, against (what was
    compared), arm, mean, low, high, subjects, runs."""
    parts = []
    for category, part in table.groupby("category", sort=False):
        for measure in MEASURES.get(category, ("identity",)):
            found = means(part, measure, seed=seed).reset_index()
            against = part[AGAINST].iloc[0] if measure != "target_error" else TARGET
            parts.append(found.assign(category=category, measure=measure, against=against))
    columns = ["category", "measure", "against", "arm", "mean", "low", "high", "subjects", "runs"]
    return pd.concat(parts, ignore_index=True)[columns]


def wide(categories: pd.DataFrame) -> list[dict]:
    """One row an arm, one column a category and measure."""
    rows: dict[str, dict[str, str]] = {}
    for row in categories.to_dict("records"):
        column = f"{row['category']}: {row['measure'].replace('_', ' ')}"
        if row["measure"] != "target_error" and row["against"] != REFERENCE:
            column += f" to the {row['against']}"
        interval = row_interval(row)
        rows.setdefault(row["arm"], {"arm": row["arm"]})[column] = interval
    return list(rows.values())


def style_transfer(table: pd.DataFrame, seed: int) -> dict:
    """Is style reference the worst case? What pruning adds to the distance to the true target
    there, over what it adds in the other categories, subject by subject."""
    style = table["category"] == STYLE
    if not style.any() or style.all():
        return {}
    errors = table.pivot(index=["subject", "prompt", "category"], columns="arm")["target_error"]
    added = (errors["recast"] - errors["full"]).rename("added").reset_index()
    added["arm"] = (added["category"] == STYLE).map({True: STYLE, False: "others"})
    halves = added.groupby(["subject", "arm"], as_index=False)["added"].mean()
    found = difference(halves.assign(prompt="all"), STYLE, "others", seed, "added")
    return {"style_transfer_above_others": found}


def measured(table: pd.DataFrame, seed: int) -> dict:
    """What `recast-probe claims --measured` reads."""
    pairs = {
        "recast_above_self_attention": ("recast", "self-attention"),
        "self_attention_above_merge": ("self-attention", "merge"),
        "merge_above_random": ("merge", "random"),
        "adaptive_above_flat": ("recast", FLAT),
    }
    return {
        **kept_by(table, "recast", seed),
        **{name: difference(table, *pair, seed) for name, pair in pairs.items()},
    }


if __name__ == "__main__":
    run_program(main, "table_1")
