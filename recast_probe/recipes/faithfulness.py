"""Is attention a faithful ranking? Deletion and insertion curves of every ranking, and controls.

The causal oracle leaves out one tile at a time, by the same score and from the same noise that the
curves are measured with: it is a strong reference in sample, not an upper bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from recast_probe import rank
from recast_probe.datasets import Case
from recast_probe.diagnostics import Interval
from recast_probe.experiments.faithfulness import (
    SHARES,
    Curves,
    SubsetValue,
    faithfulness_curves,
    group_agreement,
    sanity_checks,
)
from recast_probe.figures import plot_faithfulness as draw
from recast_probe.images.loading import fit_mask
from recast_probe.interventions import Similarity
from recast_probe.metrics import IdentityScorer
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import bench
from recast_probe.recipes.comparing import corrected_row
from recast_probe.recipes.page import Page, Section, higher, too_few
from recast_probe.recipes.recipe import Recipe
from recast_probe.recipes.results import finish, open_store
from recast_probe.recipes.words import cases_in_words
from recast_probe.selection.group_effects import tiles
from recast_probe.selection.rankings import Ranking
from recast_probe.studies import Outcome, Unit, compare, markdown, means, run_study
from recast_probe.studies.comparison import units
from recast_probe.studies.engine.options import end_of_shard, engine_options
from recast_probe.studies.limits import COSINE
from recast_probe.studies.reference_gain import gain_interval
from recast_probe.studies.resampling import bootstrap, difference_interval
from recast_probe.studies.tables import p_value, row_interval

BLOCKS = "paper"
RANKINGS = ("cross-image", "self-attention", "cosine", "random", "mask oracle", "causal oracle")
BASELINE = "random"
CONTROLS = "controls"
BUDGET = 0.25
MASKS = ("reference_mask", "target_mask")
TILES = 4  # a side of the reference is so many tiles of the causal oracle


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Run what is missing, print the tables, write everything to --out."""
    shares, side = (SHARES[-2:], 2) if chosen.quick else (SHARES, TILES)
    store = open_store(chosen, probe, blocks=BLOCKS, shares=shares, tiles=side)
    cases = units(bench(chosen))
    where = engine_options(chosen)
    judge = Judge(probe, chosen.steps, shares, side)
    judged = run_study(cases, RANKINGS, judge, store, **where)
    controls = run_study(cases, [CONTROLS], Controls(probe, chosen.steps), store, **where)
    end_of_shard(chosen, store)
    found = {
        "table": summarise(judged, chosen.seed),
        "controls": summarise_controls(controls, list(cases[0].labels), chosen.seed),
    }
    print(markdown(found["table"]))
    print(f"\nHow alike the cross-image ranking stays to itself\n\n{markdown(found['controls'])}")
    chart = figure(judged, probe.name, chosen, shares)
    tables = {"runs": judged, "controls": controls}
    margins = compare(judged, "margin", BASELINE, seed=chosen.seed)
    findings = {
        f"margin_of_{arm.replace(' ', '_').replace('-', '_')}_above_random": corrected_row(
            margins, arm
        )
        for arm in margins.index
    }
    page = page_on(found, margins, chosen.steps, judged)
    finish(chosen, store, tables, found | {"findings": findings}, {"faithfulness": chart}, page)
    return found


def page_on(found: dict[str, Any], margins: pd.DataFrame, steps: int, judged: pd.DataFrame) -> Page:
    """The page on how faithful rankings are."""
    few = too_few(judged["subject"].nunique(), len(margins))
    return Page(
        "Is attention a faithful ranking?",
        [
            Section(
                text=f"{cases_in_words(judged)}, {steps} steps. Tokens are taken "
                "away best first (deletion) or given best first (insertion), and identity is "
                "followed. Areas are mean identity over the share of tokens; margin is insertion "
                "minus deletion; sufficiency and necessity are shares of the gap between no tokens "
                "and all. The causal oracle leaves out one tile at a time: it is no upper bound.",
                rows=found["table"],
                figure="faithfulness",
                alt="Deletion and insertion curves of every ranking",
                says=[
                    higher(arm.capitalize(), "random", corrected_row(margins, arm), "margin")
                    for arm in margins.index
                ]
                + ([few] if few else []),
            ),
            Section(
                "What the ranking rests on",
                "Spearman correlation of the cross-image ranking with itself, with one thing "
                "changed.",
                found["controls"],
            ),
        ],
    )


def identity(case: Case) -> Callable[[Image.Image], float]:
    """Masked MobileNetV2 cosine of an output to the reference's subject."""
    scorer = IdentityScorer()

    def score(image: Image.Image) -> float:
        known = case.target_mask
        assert known is not None  # the recipe needs it
        mask = fit_mask(known, image)
        return scorer.score(image, mask, case.reference, case.reference_mask)["mobilenet"]

    return score


class Judge:
    """Curves of every ranking of one case; see `run_study`.

    Args:
        side: a side of the reference is so many tiles of the causal oracle.
    """

    def __init__(self, probe: Probe, steps: int, shares: tuple[float, ...], side: int) -> None:
        self.probe, self.steps, self.shares, self.side = probe, steps, shares, side

    def __call__(self, unit: Unit, arms: Sequence[str]) -> Iterator[Outcome]:
        case: Case = unit.payload
        score = identity(case)
        settings = {"steps": self.steps, "seed": case.seed}
        worth = SubsetValue(self.probe, case.reference, case.prompt, score, **settings)
        rankings = self.rankings(case, score)
        oracle = rankings["causal oracle"]
        groups = self.groups(case)
        for name in arms:
            curves = faithfulness_curves(worth, rankings[name], self.shares)
            agreement = group_agreement(rankings[name], oracle.details["effects"], groups)
            yield Outcome(name, values(curves) | {"agreement": agreement}, {}, {"case": settings})

    def groups(self, case: Case) -> list[np.ndarray]:
        """Tiles of the causal oracle."""
        grid = self.probe.layout(case.reference).references[0]
        return tiles(grid, max(1, grid.columns // self.side))

    def rankings(self, case: Case, score: Callable[[Image.Image], float]) -> dict[str, Any]:
        """All rankings, by name, of step 0 where they ask the model."""
        probe = self.probe
        given: dict[str, Any] = {"steps": self.steps, "seed": case.seed, "progress": False}
        result = probe.generate(
            case.reference,
            case.prompt,
            profile=True,
            profile_steps=0,
            blocks=BLOCKS,
            interventions=[Similarity(BLOCKS)],
            **given,
        )
        assert result.profile is not None
        among = probe.profile(
            case.reference, case.prompt, profile_steps=0, queries="reference", **given
        )
        known = case.reference_mask
        assert known is not None  # the recipe needs it
        mask = probe.reference_mask(known, case.reference)
        causal = rank.causal_oracle(
            probe, case.reference, case.prompt, score, groups=self.groups(case),
            steps=self.steps, seeds=(case.seed,), progress=False,
        )  # fmt: skip
        return {
            "cross-image": rank.cross_image(result.profile, blocks=BLOCKS),
            "self-attention": rank.self_attention(among, blocks=BLOCKS),
            "cosine": rank.cosine(result.similarity[0][0]),
            "random": rank.random(result.profile.layout.reference_tokens, case.seed),
            "mask oracle": rank.mask_oracle(mask, seed=case.seed),
            "causal oracle": causal,
        }


def values(curves: Curves) -> dict[str, float]:
    """Everything about the curves of one case, for the table of runs."""
    doses = curves.dose_response()
    found = {
        "insertion area": curves.insertion_area,
        "deletion area": curves.deletion_area,
        "margin": curves.margin,
        "sufficiency": curves.sufficiency(BUDGET),
        "necessity": curves.necessity(BUDGET),
        "gap": curves.full - curves.none,
        "dose rho": doses.rho,
        "dose error": doses.error,
    }
    for share, inserted, deleted in zip(
        curves.shares, curves.insertion, curves.deletion, strict=True
    ):
        found |= {f"inserted {share:g}": float(inserted), f"deleted {share:g}": float(deleted)}
    return found


class Controls:
    """Sanity checks of the cross-image ranking of one case; see `run_study`."""

    def __init__(self, probe: Probe, steps: int) -> None:
        self.probe, self.steps = probe, steps

    def __call__(self, unit: Unit, arms: Sequence[str]) -> Iterator[Outcome]:
        case: Case = unit.payload

        def ranked(image: Image.Image, prompt: str, seed: int) -> Ranking:
            profile = self.probe.profile(
                image, prompt, self.steps, seed, profile_steps=0, progress=False
            )
            return rank.cross_image(profile, blocks=BLOCKS)

        table = sanity_checks(
            self.probe,
            case.reference,
            case.prompt,
            ranked,
            other_prompt="paint the subject green",
            fraction=BUDGET,
            seed=case.seed,
        )
        yield Outcome(arms[0], {row["check"]: row["spearman"] for row in table.to_dict("records")})


def summarise(table: pd.DataFrame, seed: int) -> list[dict[str, Any]]:
    """One row a ranking, with intervals over subjects."""

    def by_subject(arm: str, name: str) -> list[np.ndarray]:
        part = table[table["arm"] == arm]
        kept = part[name].to_numpy(np.float64)
        return [
            group[np.isfinite(group)]
            for group in (kept[part["subject"] == s] for s in dict.fromkeys(part["subject"]))
            if np.isfinite(group).any()
        ]

    areas = {n: means(table, n, seed=seed) for n in ("insertion area", "deletion area")}
    against = compare(table, "margin", BASELINE, seed=seed)
    rows = []
    for arm in RANKINGS:
        row: dict[str, Any] = {"ranking": arm}
        for name, found in areas.items():
            row[name] = row_interval(found.loc[arm])
        margin = difference_interval(by_subject(arm, "margin"), seed=seed)
        row["margin"] = str(margin)
        row[f"margin minus {BASELINE}"], row["p (Holm)"] = "-", "-"
        if arm in against.index:
            other = against.loc[arm]
            row[f"margin minus {BASELINE}"] = row_interval(other, "difference")
            row["p (Holm)"] = p_value(other["p_holm"])
        for name in ("sufficiency", "necessity"):
            share = gain_interval(by_subject(arm, name), by_subject(arm, "gap"), seed=seed)
            row[f"{name} of {BUDGET:.0%}"] = str(share)
        for name in ("dose rho", "dose error", "agreement"):
            own = name == "agreement" and arm == "causal oracle"  # with itself
            kept = [] if own else by_subject(arm, name)
            within = None if name == "dose error" else COSINE
            each = bootstrap(kept, seed=seed, within=within) if kept else None
            row[name] = str(each) if each else "-"
        rows.append(row)
    return rows


def summarise_controls(
    table: pd.DataFrame, labels: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """One row a check: Spearman correlation with the ranking as it is.

    Args:
        labels: the columns that name a case; all others but the arm are checks.
    """
    rows = []
    for check in [name for name in table.columns if name not in ("arm", *labels)]:
        groups = [part[check].to_numpy() for _, part in table.groupby("subject", sort=False)]
        found = bootstrap(groups, seed=seed, within=COSINE)
        rows.append({"check": check, "Spearman": str(found)})
    return rows


def figure(table: pd.DataFrame, model: str, chosen: Any, given: tuple[float, ...]) -> Any:
    """Both curves of every ranking."""
    shares = [0.0, *given, 1.0]

    def curve(arm: str, kind: str) -> list[Interval]:
        part = table[table["arm"] == arm]
        return [
            bootstrap(
                [each[f"{kind} {share:g}"].to_numpy() for _, each in part.groupby("subject")],
                seed=chosen.seed,
                within=COSINE,
            )
            for share in shares
        ]

    return draw(
        shares,
        {arm: curve(arm, "inserted") for arm in RANKINGS},
        {arm: curve(arm, "deleted") for arm in RANKINGS},
        score="Masked MobileNetV2 cosine to the reference",
        selection=(
            f"{model}, {cases_in_words(table)}, {chosen.steps} steps, tokens missing in every "
            f"step; attention of blocks {BLOCKS!r}"
        ),
    )


RECIPE = Recipe(run, {"subjects": (30, 2), "prompts": (1, 1), "steps": (16, 3)}, needs=MASKS)
