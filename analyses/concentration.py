"""Figure 2 and the entropy curves: how concentrated attention is, block by block, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analyses.command import finish, open_probe, open_store, parse
from analyses.comparing import bench
from recast_probe.diagnostics import Interval, entropy, overlap, skew
from recast_probe.figures.style import INK, chart, house_style
from recast_probe.studies import Outcome, Unit, markdown, run_study
from recast_probe.studies.comparison import units
from recast_probe.studies.resampling import bootstrap

BLOCKS = "paper"
SHARES = ("top25", "top25_of_blocks", "gini", "auroc")
NAMES = {
    "top25": "top 25 %, of the mean score",
    "top25_of_blocks": "top 25 %, mean of the blocks'",
    "gini": "Gini coefficient of the mean score",
    "entropy_first": "marginal entropy of the first step, bits",
    "entropy_last": "marginal entropy of the last step, bits",
    "conditional_first": "conditional entropy of the first step, bits",
    "conditional_last": "conditional entropy of the last step, bits",
    "auroc": "AUROC against the subject's mask",
    "enrichment": "attention on the subject over its share of tokens",
}


def main(arguments: list[str] | None = None) -> dict:
    """Profile what is missing, print the table, write everything to --out."""
    chosen = parse(__doc__, "concentration", arguments, {"prompts": (1, 1)})
    probe = open_probe(chosen)
    store = open_store(chosen, probe, blocks=BLOCKS)

    def perform(unit: Unit, arms: Sequence[str]) -> Iterator[Outcome]:
        case = unit.payload
        profile = probe.profile(
            case.reference, case.prompt, chosen.steps, case.seed, progress=False
        )
        concentrated, spread = skew(profile, blocks=BLOCKS), entropy(profile, blocks=BLOCKS)
        every = skew(profile).block_top_shares.mean("step")
        mask = case.reference_mask
        places = None if mask is None else probe.reference_mask(mask, case.reference)
        # no overlap without a mask, or with one that covers all tokens or none
        apart = places is not None and 0 < places.sum() < places.size
        where = overlap(profile, places, blocks=BLOCKS, null_draws=0) if apart else None
        yield Outcome(
            arms[0],
            {
                "top25": concentrated.top_share_of_mean_score,
                "top25_of_blocks": concentrated.mean_of_block_top_shares,
                "gini": concentrated.gini_of_mean_score,
                "entropy_first": float(spread.marginal[0]),
                "entropy_last": float(spread.marginal[-1]),
                "conditional_first": float(spread.conditional[0]),
                "conditional_last": float(spread.conditional[-1]),
                "auroc": where.auroc if where else np.nan,
                "enrichment": where.enrichment if where else np.nan,
                **{f"block {int(b)}": float(every.sel(block=b)) for b in every["block"]},
                **{
                    f"step {int(step)}": float(spread.marginal.sel(step=step))
                    for step in spread.marginal["step"]
                },
            },
        )

    table = run_study(units(bench(chosen)), ["full"], perform, store)

    def interval(column: str) -> Interval:
        known = table.dropna(subset=[column])
        groups = [group.to_numpy(float) for _, group in known.groupby("subject")[column]]
        # shares, and the AUROC, lie between 0 and 1
        share = (0.0, 1.0) if column in SHARES or column.startswith("block ") else None
        return bootstrap(groups, seed=chosen.seed, within=share)

    rows = []
    for name, words in NAMES.items():
        known = int(table[name].notna().sum())
        if not known:
            print(f"No {words}: no reference has a mask.")
            continue
        words += f" ({known} of {len(table)} runs)" if known < len(table) else ""
        found = interval(name)
        rows.append({"measure": words, "mean": str(found)})
    print(markdown(rows))
    claimed = ("top25", "entropy_first", "entropy_last", "auroc")
    summary = {
        "table": rows,
        "measured": {name: float(table[name].astype(float).mean()) for name in claimed},
    }
    figures = {"concentration": draw(table, interval, probe.name)}
    finish(chosen, store, {"runs": table}, summary, figures)
    return {"table": rows}


def draw(table: pd.DataFrame, interval: Callable[[str], Interval], model: str) -> Figure:
    """Top share of every block, and entropy over the steps, with 95 % intervals."""
    with house_style():
        figure = chart(
            8.6,
            3.4,
            title="How concentrated attention to the reference is",
            note="Points and line: mean over the subjects with its 95 % interval.",
            selection=f"{model}, {len(table)} runs; right: blocks {BLOCKS}",
        )
        left, right = figure.subplots(1, 2)
        for axes, kind in ((left, "block"), (right, "step")):
            columns = [name for name in table.columns if name.startswith(f"{kind} ")]
            places = np.array([int(name.split(" ")[1]) for name in columns])
            found = [interval(name) for name in columns]
            low, mean, high = (
                np.array([getattr(each, end) for each in found]) for end in ("low", "mean", "high")
            )
            if kind == "block":
                axes.vlines(places, low, high, color=INK, linewidth=2.4)
                axes.plot(places, mean, "o", color=INK)
            else:
                axes.fill_between(places, low, high, color=INK, alpha=0.15, linewidth=0)
                axes.plot(places, mean, color=INK)
        left.axhline(0.25, color=INK, linewidth=0.8, linestyle=":")
        left.set(xlabel="Block", ylabel="Attention on the top 25 % of tokens", ylim=(0, 1))
        right.set(xlabel="Step (noise to image)", ylabel="Marginal entropy (bits)")
    return figure


if __name__ == "__main__":
    main()
