"""Table 1: ReCAST against every baseline at equal token-steps, with intervals and p-values."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd

from analyses.command import finish, open_probe, parse
from analyses.comparing import (
    add_set_distances,
    bench,
    difference,
    figure,
    run_arms,
    summarise,
)
from recast_probe import budget
from recast_probe.studies import markdown, means
from recast_probe.studies.comparison import Arm
from recast_probe.studies.tables import p_value, with_interval

PAPER_ORDER = ("recast", "self-attention", "merge", "random")
FLAT = "recast, flat budget"


def main(arguments: list[str] | None = None) -> dict:
    """Run what is missing, print the table, write everything to --out."""
    chosen = parse(__doc__, "table_1", arguments, metrics=True)
    probe = open_probe(chosen)
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
    table, store = run_arms(chosen, probe, arms)
    found = {
        "table": summarise(table, "random", chosen.seed),
        "order": paper_order(table, chosen.seed),
        "categories": by_category(table, chosen.seed),
    }
    add_set_distances(found["table"], chosen, store)
    print(markdown(found["table"]))
    print(f"\nDoes the paper's order hold?\n\n{markdown(found['order'])}")
    print(f"\nIdentity by category\n\n{markdown(found['categories'])}")
    chart = figure(table, probe.name, chosen.seed, "equal token-steps")
    summary = found | {"measured": measured(table, found["table"], chosen.seed)}
    finish(chosen, store, {"runs": table}, summary, {"identity": chart})
    return found


def paper_order(table: pd.DataFrame, seed: int) -> list[dict]:
    """Each method against the next one in the paper's order."""
    rows = []
    for better, worse in pairwise(PAPER_ORDER):
        found = difference(table, better, worse, seed)
        verdict = "holds" if found["mean"] > 0 else "reversed"
        rows.append(
            {
                "claim": f"{better} above {worse}",
                "difference": with_interval(found["mean"], found["low"], found["high"]),
                "p": p_value(found["p_value"]),
                "effect size": found["effect_size"],
                "verdict": verdict if found["p_value"] <= 0.05 else "not decided",
            }
        )
    return rows


def by_category(table: pd.DataFrame, seed: int) -> list[dict]:
    """Mean identity of every arm in every category."""
    found = {
        category: means(part, "identity", seed=seed) for category, part in table.groupby("category")
    }
    return [
        {
            "arm": arm,
            **{
                str(category): with_interval(*each.loc[arm, ["mean", "low", "high"]])
                for category, each in found.items()
            },
        }
        for arm in dict.fromkeys(table["arm"])
    ]


def measured(table: pd.DataFrame, rows: list[dict], seed: int) -> dict:
    """What `recast-probe claims --measured` reads."""
    kept = next(row["retention"] for row in rows if row["arm"] == "recast")
    pairs = {
        "recast_above_self_attention": ("recast", "self-attention"),
        "self_attention_above_merge": ("self-attention", "merge"),
        "merge_above_random": ("merge", "random"),
        "adaptive_above_flat": ("recast", FLAT),
    }
    return {
        "retention": float(kept.split(" ")[0]),
        **{name: difference(table, *pair, seed) for name, pair in pairs.items()},
    }


if __name__ == "__main__":
    main()
