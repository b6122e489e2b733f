"""Table 1: ReCAST against every baseline at equal token-steps, with intervals and p-values."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd
from matplotlib.figure import Figure

from analyses.command import finish, open_probe, open_store, parse
from recast_probe import budget
from recast_probe.diagnostics import Interval
from recast_probe.figures import identity_by_arm
from recast_probe.pocket.bench import pocket_bench
from recast_probe.studies import compare, markdown, means, retention, run_study
from recast_probe.studies.comparison import Arm, Comparison, units
from recast_probe.studies.tables import p_value, with_interval

PAPER_ORDER = ("recast", "self-attention", "merge", "random")


def main(arguments: list[str] | None = None) -> dict:
    """Run what is missing, print the table, write everything to --out."""
    chosen = parse(__doc__, "table_1", arguments)
    probe = open_probe(chosen)
    cases = pocket_bench(chosen.subjects, chosen.prompts, seed=chosen.seed)
    tokens = probe.layout(cases[0].reference).reference_tokens
    adaptive = budget.Adaptive.paper(tokens)
    arms = {
        "full": Arm("full"),
        "recast": Arm("recast", adaptive),
        "recast, flat budget": Arm("recast", budget.flat(adaptive, chosen.steps, start=1)),
        "self-attention": Arm("self-attention", adaptive),
        "cosine": Arm("cosine", adaptive),
        "merge": Arm("merge", adaptive),
        "uniform": Arm("uniform", adaptive),
        "random": Arm("random", adaptive),
        "mask-oracle": Arm("mask-oracle", adaptive),
        "reversed": Arm("reversed", adaptive),
        "none": Arm("none"),
    }
    store = open_store(chosen, probe, arms=arms)
    table = run_study(
        units(cases), list(arms), Comparison(probe, arms, store, steps=chosen.steps), store
    )
    rows = summarise(table, chosen.seed)
    print(markdown(rows))
    order = paper_order(table, chosen.seed)
    print("\nDoes the paper's order hold?\n")
    print(markdown(order))
    categories = by_category(table, chosen.seed)
    print("\nIdentity by category\n")
    print(markdown(categories))
    finish(
        chosen,
        store,
        {"runs": table},
        {
            "table": rows,
            "order": order,
            "categories": categories,
            "measured": measured(table, chosen.seed),
        },
        {"identity": figure(table, probe.name, chosen.seed)},
    )
    return {"table": rows, "order": order, "categories": categories}


def summarise(table: pd.DataFrame, seed: int) -> list[dict]:
    """One row an arm: scores, retention of identity, difference to random with p-values."""
    scores = {
        name: means(table, name, seed=seed) for name in ("identity", "identity_to_full", "colour")
    }
    kept = retention(table, "identity", seed=seed)
    against = compare(table, "identity", "random", seed=seed)
    steps, seconds = (table.groupby("arm")[name].mean() for name in ("token_steps", "seconds"))
    rows = []
    for arm in scores["identity"].index:
        row = {"arm": arm, "token-steps": round(float(steps[arm]))}
        for name, found in scores.items():
            row[name.replace("_", " ")] = with_interval(*found.loc[arm, ["mean", "low", "high"]])
        row["retention"] = with_interval(*kept.loc[arm]) if arm in kept.index else "1"
        row["minus random"], row["p (Holm)"] = "-", "-"
        if arm in against.index:
            found = against.loc[arm]
            row["minus random"] = with_interval(*found[["difference", "low", "high"]])
            row["p (Holm)"] = p_value(found["p_holm"])
        row["seconds"] = f"{seconds[arm]:.2f}"
        rows.append(row)
    return rows


def paper_order(table: pd.DataFrame, seed: int) -> list[dict]:
    """Each method against the next one in the paper's order."""
    rows = []
    for better, worse in pairwise(PAPER_ORDER):
        pair = table[table["arm"].isin([better, worse])]
        found = compare(pair, "identity", worse, seed=seed).loc[better]
        above = found["difference"] > 0
        verdict = "not decided" if found["p_value"] > 0.05 else "holds" if above else "reversed"
        rows.append(
            {
                "claim": f"{better} above {worse}",
                "difference": with_interval(*found[["difference", "low", "high"]]),
                "p": p_value(found["p_value"]),
                "effect size": found["effect_size"],
                "verdict": verdict,
            }
        )
    return rows


def measured(table: pd.DataFrame, seed: int) -> dict:
    """What `recast-probe claims --measured` reads."""
    found: dict = {
        "retention": float(retention(table, "identity", seed=seed).loc["recast", "retention"])
    }
    pairs = [*pairwise(PAPER_ORDER), ("recast", "recast, flat budget")]
    names = [
        "recast_above_self_attention",
        "self_attention_above_merge",
        "merge_above_random",
        "adaptive_above_flat",
    ]
    for name, (better, worse) in zip(names, pairs, strict=True):
        pair = table[table["arm"].isin([better, worse])]
        row = compare(pair, "identity", worse, seed=seed).loc[better]
        found[name] = {
            "mean": float(row["difference"]),
            **{each: float(row[each]) for each in ("low", "high", "p_value")},
        }
    return found


def by_category(table: pd.DataFrame, seed: int) -> list[dict]:
    """Mean identity of every arm in every category."""
    found = {
        category: means(part, "identity", seed=seed) for category, part in table.groupby("category")
    }
    arms = list(dict.fromkeys(table["arm"]))
    return [
        {
            "arm": arm,
            **{
                category: with_interval(*each.loc[arm, ["mean", "low", "high"]])
                for category, each in found.items()
            },
        }
        for arm in arms
    ]


def figure(table: pd.DataFrame, model: str, seed: int) -> Figure:
    """Identity of every arm, each faint line one subject."""
    found = means(table, "identity", seed=seed)
    subjects = table.groupby(["arm", "subject"])["identity"].mean()
    intervals = {
        arm: Interval(row["mean"], row["low"], row["high"], 0.95, int(row["subjects"]))
        for arm, row in found.iterrows()
    }
    return identity_by_arm(
        {arm: subjects[arm].tolist() for arm in intervals},
        intervals,
        metric="Masked MobileNetV2 cosine to the reference",
        selection=f"{model}, {len(table) // len(found)} runs an arm, equal token-steps",
    )


if __name__ == "__main__":
    main()
