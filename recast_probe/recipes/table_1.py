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

from recast_probe import budget
from recast_probe.errors import InputError
from recast_probe.pocket.bench import CATEGORIES
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import POCKET, bench
from recast_probe.recipes.comparing import (
    add_set_distances,
    corrected_row,
    difference,
    figure,
    kept_by,
    run_arms,
    summarise,
)
from recast_probe.recipes.page import Page, Section, corrected, decided, ends, higher, warned
from recast_probe.recipes.recipe import Recipe
from recast_probe.recipes.results import finish
from recast_probe.recipes.words import about, counted
from recast_probe.studies import compare, markdown, means
from recast_probe.studies.comparison import Arm
from recast_probe.studies.scored_area import AGAINST, REFERENCE, TARGET
from recast_probe.studies.tables import p_value, row_interval

PAPER_ORDER = ("recast", "self-attention", "merge", "random")
FLAT = "recast, flat budget"
STYLE = CATEGORIES[3]
ONLY_STYLE = f"Table 1 compares identity; add other categories than {STYLE!r}."
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


def prepare(chosen: Any) -> None:
    """Check the categories.

    Raises:
        InputError: they are of another benchmark, more than the prompts, or style alone.
    """
    categories = chosen.categories or ()
    if categories and chosen.benchmark != POCKET:
        raise InputError(f"--categories are PocketBench's, and {chosen.benchmark} has its own.")
    if categories and len(categories) > chosen.prompts:
        raise InputError(
            f"{len(categories)} categories take turns over {chosen.prompts} prompts, so "
            f"some would have none: give --prompts {len(categories)} or more."
        )
    if set(categories) == {STYLE}:
        raise InputError(ONLY_STYLE)


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Run what is missing, print the table, write everything to --out."""
    table, store = run_arms(chosen, probe, table_arms(probe, chosen))
    named = table[table["category"] != STYLE]
    if named.empty:
        raise InputError(ONLY_STYLE)
    categories = by_category(table, chosen.seed)
    found: dict[str, Any] = {
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
    tables = {"runs": table, "categories": categories}
    page = page_on(found, named, summary["measured"], chosen.seed)
    finish(chosen, store, tables, summary, {"identity": chart}, page)
    return found


def page_on(found: dict[str, Any], table: pd.DataFrame, numbers: dict, seed: int) -> Page:
    """The page on the table, its order and its categories."""
    against = compare(table, "identity", "random", seed=seed)
    kept = f"ReCAST keeps {ends(numbers['retention'], '.1%')} of the full run's identity"
    if "reference_gain" in numbers:
        kept += f", and {ends(numbers['reference_gain'], '.0%')} of what the reference adds to it"
    arms = {"recast": "ReCAST", "self-attention": "Self-attention", "reversed": "Its reverse"}
    *methods, flat = corrected(
        [*(corrected_row(against, arm) for arm in arms), numbers["adaptive_above_flat"]]
    )
    says = [f"{kept}."]
    named = zip(arms.values(), methods, strict=True)
    says += [higher(name, "random", each) for name, each in named]
    says.append(higher("Eq. 4's growing budget", "a flat one", flat))
    kinds, of_kinds = in_kinds(table, numbers, seed)
    return Page(
        "Table 1: every method at equal token-steps",
        [
            Section(
                text=f"{counted(table)} "
                "From step 1 on each pruned arm keeps as many tokens as "
                f"Eq. 4 says, scaled to this model. {about(table)} Two baselines are not quite "
                "what their names say: self-attention is Attn-Prune's ranking after FastV "
                "(attention among reference tokens), and merge joins latents once at the input, "
                "where ToMe does so in every block.",
                rows=found["table"],
                figure="identity",
                alt="Identity of every arm of Table 1, each faint line one subject",
                says=says + warned([*methods, flat]),
            ),
            Section("Does the paper's order hold?", rows=found["order"]),
            Section(
                "By kind of edit",
                "Identity to the reference; of a local edit to its true target, since likeness to "
                "the reference would reward an output that ignores the prompt.",
                found["categories"],
                says=kinds + warned(of_kinds),
            ),
        ],
    )


def in_kinds(
    table: pd.DataFrame, numbers: dict, seed: int
) -> tuple[list[str], list[dict[str, Any]]]:
    """What holds in each kind of edit, a sentence for each comparison, and the comparisons."""
    named, found = [], []
    for category, part in table.groupby("category", sort=False):
        for other in ("random", "self-attention"):
            named.append((f"{str(category).capitalize()}: ", "ReCAST", other, "identity"))
            found.append(difference(part, "recast", other, seed))
    if "style_transfer_above_others" in numbers:
        named.append(("", "Style reference", "the other kinds", "loss by pruning"))
        found.append(numbers["style_transfer_above_others"])
    found = corrected(found)
    return [
        where + higher(one, other, each, what)
        for (where, one, other, what), each in zip(named, found, strict=True)
    ], found


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
    differences = corrected([difference(table, *pair, seed) for pair in pairs])
    verdicts = {1: "holds", -1: "reversed", 0: "not decided"}
    rows = []
    for (better, worse), found in zip(pairs, differences, strict=True):
        rows.append(
            {
                "claim": f"{better} above {worse}",
                "difference": row_interval(found),
                "p (Holm)": p_value(found["p_holm"]),
                "effect size": found["effect_size"],
                "verdict": verdicts[decided(found)],
            }
        )
    return rows


def by_category(table: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Mean of every arm in every category with its interval: category, measure, against (what was
    compared), arm, mean, low, high, subjects, runs."""
    parts = []
    for category, part in table.groupby("category", sort=False):
        for measure in MEASURES.get(category, ("identity",)):
            if measure not in part or part[measure].isna().any():
                continue  # no true targets
            found = means(part, measure, seed=seed).reset_index()
            against = " or the ".join(part[AGAINST].unique())
            against = TARGET if measure == "target_error" else against
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
    there, over what it adds in the other categories, subject by subject. Of subjects that have
    both kinds of cases with a true target; nothing where there are none."""
    if "target_error" not in table:
        return {}
    errors = table.pivot(index=["subject", "prompt", "category"], columns="arm")["target_error"]
    added = (errors["recast"] - errors["full"]).dropna().rename("added").reset_index()
    added["arm"] = (added["category"] == STYLE).map({True: STYLE, False: "others"})
    halves = added.groupby(["subject", "arm"], as_index=False)["added"].mean()
    halves = halves[halves.groupby("subject")["arm"].transform("nunique") == 2]
    if halves.empty:
        return {}
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


RECIPE = Recipe(run, options=OPTIONS, prepare=prepare, metrics=True, arms=True)
