"""Figure 2 and the entropy curves: how concentrated attention is, block by block, step by step.

Whether it lies on the subject is held, pair by pair, against what position alone reaches: a map
that only prefers the middle, and masks of other subjects of the benchmark.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from recast_probe.datasets import Case
from recast_probe.diagnostics import Interval, entropy, overlap, skew
from recast_probe.diagnostics.skew import OF_BLOCKS, OF_MEAN_SCORE, top_words
from recast_probe.figures.style import INK, chart, house_style
from recast_probe.images.loading import fit_mask
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import POCKET, bench, benchmark_of
from recast_probe.recipes.page import Page, Section, against, corrected, too_few
from recast_probe.recipes.recipe import Recipe
from recast_probe.recipes.results import finish, open_store
from recast_probe.recipes.words import cases_in_words
from recast_probe.studies import Outcome, Unit, markdown, run_study
from recast_probe.studies.comparison import units
from recast_probe.studies.engine.options import end_of_shard, engine_options
from recast_probe.studies.resampling import bootstrap, difference_interval, sign_flip_p_value
from recast_probe.studies.tables import p_value

BLOCKS = "paper"
OTHERS = 50  # subjects at most whose masks are laid on the maps of all others
SHARES = ("top25", "top25_of_blocks", "gini", "auroc", "auroc_center", "auroc_other_masks")
NAMES = {
    "top25": OF_MEAN_SCORE,
    "top25_of_blocks": OF_BLOCKS,
    "gini": "Gini coefficient of the mean score",
    "entropy_first": "marginal entropy of the first step, bits",
    "entropy_last": "marginal entropy of the last step, bits",
    "entropy_fall": "fall of the marginal entropy, first minus last step, bits",
    "conditional_first": "conditional entropy of the first step, bits",
    "conditional_last": "conditional entropy of the last step, bits",
    "auroc": "AUROC against the subject's mask",
    "auroc_center": "AUROC of a map that only prefers the middle",
    "auroc_other_masks": "AUROC against masks of other subjects",
    "auroc_above_center": "AUROC minus that of a map that only prefers the middle",
    "auroc_above_other_masks": "AUROC minus that against masks of other subjects",
    "enrichment": "attention on the subject over its share of tokens",
}
# differences within a run, tested by flipping signs; the limits of what is compared
DIFFERENCES: dict[str, tuple[float, float] | None] = {
    "entropy_fall": None,
    "auroc_above_center": (0.0, 1.0),
    "auroc_above_other_masks": (0.0, 1.0),
}
CLAIMED = (
    *("top25", "top25_of_blocks", "entropy_first", "entropy_last", "entropy_fall"),
    *("auroc", "auroc_center", "auroc_other_masks"),
    *("auroc_above_center", "auroc_above_other_masks"),
)


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Profile what is missing, print the table, write everything to --out."""
    cases = bench(chosen)
    others = masks_of(cases)
    store = open_store(chosen, probe, blocks=BLOCKS, other_masks=masks_in_settings(chosen, others))

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
        laid = [
            probe.reference_mask(fit_mask(other, case.reference), case.reference)
            for name, other in others.items()
            if name != case.subject
        ]
        where = (
            overlap(
                profile,
                places,
                blocks=BLOCKS,
                null_draws=0,
                other_masks=[each for each in laid if 0 < each.sum() < each.size],
            )
            if apart
            else None
        )
        yield Outcome(
            arms[0],
            {
                "top25": concentrated.top_share_of_mean_score,
                "top25_of_blocks": concentrated.mean_of_block_top_shares,
                "gini": concentrated.gini_of_mean_score,
                "entropy_first": float(spread.marginal[0]),
                "entropy_last": float(spread.marginal[-1]),
                "entropy_fall": float(spread.marginal[0] - spread.marginal[-1]),
                "entropy_maximum": spread.maximum,
                "tokens": concentrated.tokens,
                "conditional_first": float(spread.conditional[0]),
                "conditional_last": float(spread.conditional[-1]),
                "auroc": where.auroc if where else np.nan,
                "auroc_center": where.center_auroc if where else np.nan,
                "auroc_other_masks": mean_or_nan(where.other_masks_auroc) if where else np.nan,
                "auroc_above_center": where.above_center if where else np.nan,
                "auroc_above_other_masks": where.above_other_masks if where else np.nan,
                "enrichment": where.enrichment if where else np.nan,
                **{f"block {int(b)}": float(every.sel(block=b)) for b in every["block"]},
                **{
                    f"step {int(step)}": float(spread.marginal.sel(step=step))
                    for step in spread.marginal["step"]
                },
            },
        )

    table = run_study(units(cases), ["full"], perform, store, **engine_options(chosen))
    end_of_shard(chosen, store)

    def groups(column: str) -> list[np.ndarray]:
        known = table.dropna(subset=[column])
        return [group.to_numpy(float) for _, group in known.groupby("subject")[column]]

    def interval(column: str) -> Interval:
        if column in DIFFERENCES:
            within = DIFFERENCES[column]
            return difference_interval(groups(column), seed=chosen.seed, within=within)
        # shares, and the AUROC, lie between 0 and 1
        share = (0.0, 1.0) if column in SHARES or column.startswith("block ") else None
        return bootstrap(groups(column), seed=chosen.seed, within=share)

    rows: list[dict[str, Any]] = []
    measured: dict[str, Any] = {}
    tested: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    # of references of several sizes, the counts are not said
    top = top_words(int(table["tokens"].iloc[0])) if table["tokens"].nunique() == 1 else "top 25 %"
    for name, named in NAMES.items():
        words = named.format(top=top)
        known = int(table[name].notna().sum())
        if not known:
            print(f"No {words}: there are no masks for it.")
            continue
        words += f" ({known} of {len(table)} runs)" if known < len(table) else ""
        found = interval(name)
        rows.append({"measure": words, "mean": str(found), "p (Holm)": "-"})
        quantity: dict[str, Any] = found.to_dict()
        if name in DIFFERENCES:
            quantity["p_value"] = sign_flip_p_value(groups(name), seed=chosen.seed)
            tested[name] = (rows[-1], quantity)
        if name in CLAIMED:
            measured[name] = quantity
    apart = corrected([quantity for _, quantity in tested.values()])
    for (row, _), quantity in zip(tested.values(), apart, strict=True):
        row["p (Holm)"] = p_value(quantity["p_holm"])
    if table["entropy_maximum"].nunique() == 1:
        measured["entropy_maximum"] = float(table["entropy_maximum"].iloc[0])
    print(markdown(rows))
    summary = {"table": rows, "measured": measured}
    figures = {"concentration": draw(table, interval, probe.name)}
    page = page_on(rows, measured, dict(zip(tested, apart, strict=True)), table)
    finish(chosen, store, {"runs": table}, summary, figures, page)
    return {"table": rows}


def page_on(
    rows: list[dict[str, Any]],
    measured: dict[str, Any],
    apart: dict[str, dict[str, Any]],
    table: pd.DataFrame,
) -> Page:
    """The page on how attention is shared out; `apart` has the differences that were tested."""
    says = [
        against("The share of the top quarter of the mean score", measured["top25"], 0.8, "0.8"),
        against("The same of each block", measured["top25_of_blocks"], 0.8, "0.8"),
        against("The fall of the entropy", apart["entropy_fall"], 0, "0 bits"),
    ]
    for name, words in (("center", "of a map of the middle"), ("other_masks", "of other masks")):
        if (found := apart.get(f"auroc_above_{name}")) is not None:
            says.append(against(f"The AUROC minus that {words}", found, 0, "0"))
    few = too_few(max(each["count"] for each in apart.values()), len(apart))
    says += [few] if few else []
    return Page(
        "Where attention lies",
        [
            Section(
                text=f"Profiled runs of {cases_in_words(table)}. An "
                "even spread gives 25 % on the top 25 % (scores that are independent and "
                "exponential would give 60 %). An AUROC of 0.5 is no chance level, because "
                "subjects lie near the middle: what position alone reaches, and masks of other "
                "subjects, stand beside it.",
                rows=rows,
                figure="concentration",
                alt="Attention on the top quarter by block, and entropy over the steps",
                says=says,
            )
        ],
    )


def masks_of(cases: Sequence[Case]) -> dict[str, np.ndarray]:
    """Masks of the first subjects that have one, by subject."""
    found: dict[str, np.ndarray] = {}
    for case in cases:
        mask = case.reference_mask if case.subject not in found else None
        if mask is not None:
            found[case.subject] = mask
        if len(found) == OTHERS:
            break
    return found


def masks_in_settings(chosen: Any, masks: Mapping[str, np.ndarray]) -> Any:
    """What a store keeps of the masks that all maps are held against: the subjects, and the digest
    of each mask where it is no part of PocketBench."""
    if benchmark_of(chosen) == POCKET:
        return list(masks)
    return {
        name: hashlib.sha256(repr(mask.shape).encode() + np.packbits(mask).tobytes()).hexdigest()
        for name, mask in masks.items()
    }


def mean_or_nan(values: np.ndarray) -> float:
    """NaN where there are none."""
    return float(values.mean()) if len(values) else np.nan


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


RECIPE = Recipe(run, {"prompts": (1, 1)})
