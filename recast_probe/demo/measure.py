"""Numbers of the demo: identity of every arm, and the four diagnostics over all profiles."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recast_probe.demo.arms import ARMS, Case, Run
from recast_probe.diagnostics import (
    Entropy,
    Overlap,
    Skew,
    Stability,
    entropy,
    overlap,
    skew,
    stability,
)
from recast_probe.identity import IdentityScorer
from recast_probe.images import fit_mask
from recast_probe.probe import Probe
from recast_probe.studies.resampling import bootstrap, sign_flip_p_value

BLOCKS = "single"
SCORES = ("identity", "identity_to_full", "colour")


@dataclass(frozen=True)
class Measurements:
    """Per-run numbers by arm, diagnostics by case, all in the order of the cases.

    Attributes:
        references: of each case; prompts of one reference are no independent samples.
    """

    references: list[str]
    scores: dict[str, dict[str, list[float]]]
    skews: list[Skew]
    entropies: list[Entropy]
    overlaps: list[Overlap]
    stabilities: list[Stability]
    all_rankings: Stability


def measure(probe: Probe, cases: Sequence[Case], runs: Mapping[str, Sequence[Run]]) -> Measurements:
    """Score every image and diagnose every profile.

    Identity is scored on the subject's place alone: the output under its target mask against the
    reference under its own.
    """
    scorer = IdentityScorer()
    scores: dict[str, dict[str, list[float]]] = {arm: {name: [] for name in SCORES} for arm in ARMS}
    for arm in ARMS:
        for case, run, full in zip(cases, runs[arm], runs["full"], strict=True):
            sample, mask = case.sample, fit_mask(case.target_mask, run.image)
            to_reference = scorer.score(run.image, mask, sample.image, sample.mask)
            to_full = scorer.score(run.image, mask, full.image, mask)
            scores[arm]["identity"].append(to_reference["mobilenet"])
            scores[arm]["identity_to_full"].append(to_full["mobilenet"])
            scores[arm]["colour"].append(to_reference["colour"])
    profiles = [run.profile for run in runs["full"]]
    assert all(profile is not None for profile in profiles)
    masks = [probe.reference_mask(case.sample.mask, case.sample.image) for case in cases]
    by_sample: dict[str, list[Any]] = {}
    for case, profile in zip(cases, profiles, strict=True):
        by_sample.setdefault(case.sample.name, []).append(profile)
    labels = [case.name.rsplit("-", 1)[0].split("-", 1)[1] + f" {case.name[-1]}" for case in cases]
    with warnings.catch_warnings():
        # two prompts of a reference make one pair; its interval is not used
        warnings.filterwarnings("ignore", message="Two rankings make one pair")
        stabilities = [
            stability(group, blocks=BLOCKS) for group in by_sample.values() if len(group) > 1
        ]
        all_rankings = stability(profiles, labels, blocks=BLOCKS)  # type: ignore[arg-type]
    return Measurements(
        references=[case.sample.name for case in cases],
        scores=scores,
        skews=[skew(profile, blocks=BLOCKS) for profile in profiles],  # type: ignore[arg-type]
        entropies=[entropy(profile, blocks=BLOCKS) for profile in profiles],  # type: ignore[arg-type]
        overlaps=[
            overlap(profile, mask, blocks=BLOCKS)  # type: ignore[arg-type]
            for profile, mask in zip(profiles, masks, strict=True)
        ],
        stabilities=stabilities,
        all_rankings=all_rankings,
    )


def by_reference(found: Measurements, values: Sequence[float] | np.ndarray) -> list[np.ndarray]:
    """Values of the cases, one array for each reference."""
    names = np.array(found.references)
    return [np.asarray(values)[names == name] for name in dict.fromkeys(found.references)]


def summarise(found: Measurements, runs: Mapping[str, Sequence[Run]], seed: int) -> dict[str, Any]:
    """The numbers of `summary.json`.

    Intervals resample references and then prompts; p-values flip the signs of whole references.
    """

    def interval(
        values: Sequence[float] | np.ndarray, within: tuple[float, float] | None = None
    ) -> dict[str, float]:
        return bootstrap(by_reference(found, values), seed=seed, within=within).to_dict()

    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values))

    def recast_minus(other: str) -> dict[str, float]:
        difference = np.subtract(
            found.scores["recast"]["identity"], found.scores[other]["identity"]
        )
        p_value = sign_flip_p_value(by_reference(found, difference), seed=seed)
        return {**interval(difference), "p_value": p_value}

    arms = {
        arm: {
            **{name: interval(found.scores[arm][name]) for name in SCORES},
            "mean_budget": mean([run.mean_budget for run in runs[arm]]),
            "seconds_per_image": mean([run.seconds for run in runs[arm]]),
        }
        for arm in ARMS
    }
    last = found.entropies[0].marginal.sizes["step"] - 1
    return {
        "arms": arms,
        "identity_difference": {
            f"recast_minus_{other}": recast_minus(other) for other in ARMS if other != "recast"
        },
        "selection": found.skews[0].selection,
        "skew": {
            "top25": mean([s.top_share_of_mean_score for s in found.skews]),
            "top25_interval": interval([s.top_share_of_mean_score for s in found.skews]),
            "top25_mean_of_blocks": mean([s.mean_of_block_top_shares for s in found.skews]),
            "gini": mean([s.gini_of_mean_score for s in found.skews]),
        },
        "entropy": {
            "first": mean([float(e.marginal[0]) for e in found.entropies]),
            "last": mean([float(e.marginal[last]) for e in found.entropies]),
            "maximum": found.entropies[0].maximum,
            "conditional_first": mean([float(e.conditional[0]) for e in found.entropies]),
            "conditional_last": mean([float(e.conditional[last]) for e in found.entropies]),
        },
        "overlap": {
            "auroc": mean([o.auroc for o in found.overlaps]),
            "auroc_interval": interval([o.auroc for o in found.overlaps], (0, 1)),
            "auroc_null": mean([o.null["auroc"].mean for o in found.overlaps]),
            "mass_share": mean([o.mass_share for o in found.overlaps]),
            "base_rate": mean([o.base_rate for o in found.overlaps]),
            "enrichment": mean([o.enrichment for o in found.overlaps]),
        },
        "stability": {
            "spearman": mean([s.mean_spearman.mean for s in found.stabilities])
            if found.stabilities
            else None,
            "spearman_all_pairs": found.all_rankings.mean_spearman.mean,
        },
    }
