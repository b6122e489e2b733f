"""Numbers of the demo: identity of every arm, and the four diagnostics over all profiles."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from recast_probe import pocket
from recast_probe.blocks import single_or_all
from recast_probe.demo.agreement import PAINT, Agreement, agreement
from recast_probe.demo.arms import ARMS, Case, Run
from recast_probe.diagnostics import Entropy, Overlap, Skew, entropy, overlap, skew
from recast_probe.diagnostics.inference import PairedDifference, sign_flip_p_value
from recast_probe.diagnostics.intervals import Interval, difference_interval, mean_interval
from recast_probe.diagnostics.position import position_control
from recast_probe.errors import InputError
from recast_probe.pocket.shipped import KINDS
from recast_probe.probe import Probe
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.studies.limits import COSINE, SHARE, limits_of
from recast_probe.studies.reference_gain import gain_interval

SCORES = ("identity", "identity_to_full", "colour")


@dataclass(frozen=True)
class Measurements:
    """Per-run numbers by arm, diagnostics by case, all in the order of the cases.

    Attributes:
        references: of each case; prompts of one reference are no independent samples.
        overlaps: also against the masks of all other shipped samples.
    """

    references: list[str]
    scores: dict[str, dict[str, list[float]]]
    skews: list[Skew]
    entropies: list[Entropy]
    overlaps: list[Overlap]
    agreement: Agreement


def measure(
    probe: Probe,
    cases: Sequence[Case],
    runs: Mapping[str, Sequence[Run]],
    painted: Mapping[str, list[AttentionProfile]],
) -> Measurements:
    """Gather the scores and diagnose every profile.

    Identity was scored on the subject's place alone: the output under its target mask against the
    reference under its own.
    """
    profiles = [run.profile for run in runs["full"] if run.profile is not None]
    assert len(profiles) == len(cases)
    blocks = single_or_all(probe.block_kinds)
    return Measurements(
        references=[case.sample.name for case in cases],
        scores={
            arm: {name: [run.values[name] for run in runs[arm]] for name in SCORES} for arm in ARMS
        },
        skews=[skew(profile, blocks=blocks) for profile in profiles],
        entropies=[entropy(profile, blocks=blocks) for profile in profiles],
        overlaps=[
            _overlap(probe, case, profile) for case, profile in zip(cases, profiles, strict=True)
        ],
        agreement=agreement(cases, profiles, painted, blocks),
    )


def _overlap(probe: Probe, case: Case, profile: AttentionProfile) -> Overlap:
    """With its own mask, and with those of the other shipped samples."""
    sample = case.sample
    others = []
    for each in pocket.samples():
        # on a coarse grid a small subject may cover no token
        with suppress(InputError):
            if each.name != sample.name:
                others.append(probe.reference_mask(each.mask, sample.image))
    return overlap(
        profile,
        probe.reference_mask(sample.mask, sample.image),
        blocks=single_or_all(probe.block_kinds),
        other_masks=[mask for mask in others if not mask.all()],
    )


def by_reference(found: Measurements, values: Sequence[float] | np.ndarray) -> list[np.ndarray]:
    """Values of the cases, one array for each reference."""
    names = np.array(found.references)
    return [np.asarray(values)[names == name] for name in dict.fromkeys(found.references)]


def mean_of(found: Measurements, score: str, arm: str) -> Interval:
    """A score of an arm, with its interval over references."""
    groups = by_reference(found, found.scores[arm][score])
    return mean_interval(groups, within=limits_of(score))


def summarise(found: Measurements, runs: Mapping[str, Sequence[Run]], seed: int) -> dict[str, Any]:
    """The numbers of `summary.json`.

    Intervals are over references, the independent samples: prompts of one count together. P-values
    flip the signs of whole references.
    """

    def interval(values: Sequence[float] | np.ndarray, within: tuple[float, float]) -> dict:
        groups = by_reference(found, values)
        return mean_interval(groups, within=within, seed=seed).to_dict()

    def difference(values: Sequence[float] | np.ndarray, within: tuple[float, float]) -> dict:
        groups = by_reference(found, values)
        p_value = sign_flip_p_value(groups, seed=seed)
        known = difference_interval(groups, within=within, seed=seed).to_dict()
        return {**known, "p_value": p_value}

    def of_references(values: Sequence[float]) -> dict | None:
        """One value a reference; none where prompts make no such pairs."""
        if np.isnan(values).any():
            return None
        return mean_interval([np.array([value]) for value in values], within=COSINE).to_dict()

    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values))

    arms = {
        arm: {
            **{name: mean_of(found, name, arm).to_dict() for name in SCORES},
            "mean_budget": mean([run.values["mean_budget"] for run in runs[arm]]),
            "seconds_per_image": mean([run.values["seconds"] for run in runs[arm]]),
        }
        for arm in ARMS
    }
    identity = {arm: np.array(found.scores[arm]["identity"]) for arm in ARMS}
    first = [float(each.marginal[0]) for each in found.entropies]
    last = [float(each.marginal[-1]) for each in found.entropies]
    maximum = found.entropies[0].maximum
    top25 = [each.top_share_of_mean_score for each in found.skews]
    of_blocks = [each.mean_of_block_top_shares for each in found.skews]
    with warnings.catch_warnings():
        # of a single reference the report says that the ends cannot be told
        warnings.filterwarnings("ignore", message="One subject has no interval")
        position = position_control(found.overlaps, found.references, seed=seed)
    agree = found.agreement
    spearman = of_references(agree.all_pairs)
    return {
        "arms": arms,
        "identity_difference": {
            f"recast_minus_{other}": difference(identity["recast"] - identity[other], COSINE)
            for other in ARMS
            if other != "recast"
        },
        "reference_gain": {
            arm: gain_interval(
                by_reference(found, identity[arm] - identity["none"]),
                by_reference(found, identity["full"] - identity["none"]),
                seed=seed,
            ).to_dict()
            for arm in ARMS
            if arm not in ("full", "none")
        },
        "selection": found.skews[0].selection,
        "skew": {
            "tokens": found.skews[0].tokens,
            "top_tokens": found.skews[0].top_tokens,
            "top25": mean(top25),
            "top25_interval": interval(top25, SHARE),
            "top25_of_blocks": interval(of_blocks, SHARE),
            "gini": mean([each.gini_of_mean_score for each in found.skews]),
        },
        "entropy": {
            "first": mean(first),
            "last": mean(last),
            "fall": difference(np.subtract(first, last), (0, maximum)),
            "maximum": maximum,
            "conditional_first": mean([float(each.conditional[0]) for each in found.entropies]),
            "conditional_last": mean([float(each.conditional[-1]) for each in found.entropies]),
        },
        "overlap": {
            "auroc": position.auroc.mean,
            "auroc_interval": position.auroc.to_dict(),
            "auroc_center": position.center_auroc.to_dict(),
            "auroc_other_masks": _known(position.other_masks_auroc),
            "auroc_above_center": _tested(position.above_center),
            "auroc_above_other_masks": _tested(position.above_other_masks),
            "verdict": position.verdict,
            "auroc_null": mean([each.null["auroc"].mean for each in found.overlaps]),
            "mass_share": mean([each.mass_share for each in found.overlaps]),
            "base_rate": mean([each.base_rate for each in found.overlaps]),
            "enrichment": mean([each.enrichment for each in found.overlaps]),
        },
        "stability": {
            "kinds": [*dict.fromkeys(KINDS), PAINT],
            "spearman": None if spearman is None else spearman["mean"],
            "spearman_interval": spearman,
            "spearman_same_kind": of_references(agree.same_kind),
            "spearman_other_kind": of_references(agree.other_kind),
            "spearman_all_pairs": agree.matrix.mean_spearman.mean,
        },
    }


def _known(found: Interval | None) -> dict | None:
    return None if found is None else found.to_dict()


def _tested(found: PairedDifference | None) -> dict | None:
    return None if found is None else {**found.interval.to_dict(), "p_value": found.p_value}
