"""Do rankings of one reference agree, among prompts of one kind of edit and between two kinds?

Prompts of one kind alone would show more agreement than there is: which tokens are looked at
follows the kind of edit. The prompts of the shipped samples keep the subject in place or move it,
and two more for each reference ask to paint it. Only their step 0 is run, the step that ReCAST
ranks by, and rankings of step 0 are compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recast_probe.demo.arms import Case
from recast_probe.diagnostics import Stability, stability
from recast_probe.pocket import Sample
from recast_probe.probe import Probe
from recast_probe.profiles.profile import AttentionProfile

PAINT = "another colour"
TINTS = ("red", "blue")


@dataclass(frozen=True)
class Agreement:
    """Mean Spearman correlations of rankings of step 0, one number a reference.

    Attributes:
        references: by name, in the order of the numbers.
        all_pairs: every pair of prompts of a reference.
        same_kind: pairs of prompts that ask for one kind of edit.
        other_kind: pairs of prompts that ask for two kinds.
        matrix: every pair of rankings, of all references.
    """

    references: list[str]
    all_pairs: list[float]
    same_kind: list[float]
    other_kind: list[float]
    matrix: Stability


def paint_profiles(
    probe: Probe, cases: Sequence[Case], steps: int, blocks: str
) -> dict[str, list[AttentionProfile]]:
    """Step 0 of prompts that ask to paint the subject, by reference; noise as in its first case."""
    first: dict[str, Case] = {}
    for case in cases:
        first.setdefault(case.sample.name, case)
    found: dict[str, list[AttentionProfile]] = {}
    for name, case in first.items():
        found[name] = [
            probe.profile(  # type: ignore[misc]
                case.sample.image,
                prompt,
                steps,
                case.seed,
                blocks=blocks,
                profile_steps=0,
                mass_table="queried",
                progress=False,
            )
            for prompt in paint_prompts(case.sample)
        ]
    return found


def paint_prompts(sample: Sample) -> list[str]:
    """One for each tint."""
    return [f"paint the {sample.subject} {tint}" for tint in TINTS]


def agreement(
    cases: Sequence[Case],
    profiles: Sequence[AttentionProfile],
    painted: Mapping[str, list[AttentionProfile]],
    blocks: str,
) -> Agreement:
    """Agreement of the cases' own rankings of step 0 and of those of `paint_profiles`."""
    labels: list[str] = []
    kinds: list[str] = []
    every: list[AttentionProfile] = []
    names: list[str] = []
    for name in dict.fromkeys(case.sample.name for case in cases):
        own = [(c, p) for c, p in zip(cases, profiles, strict=True) if c.sample.name == name]
        subject = own[0][0].sample.subject
        every += [profile for _, profile in own] + painted[name]
        labels += [f"{subject} {case.name.rsplit('-', 1)[1]}" for case, _ in own]
        labels += [f"{subject} {tint}" for tint in TINTS]
        kinds += [case.kind for case, _ in own] + [PAINT] * len(TINTS)
        names += [name] * (len(own) + len(TINTS))
    with warnings.catch_warnings():
        # the interval of the mean over all pairs is not used
        warnings.filterwarnings("ignore", message="Two rankings make one pair")
        matrix = stability([profile.sel(blocks, steps=0) for profile in every], labels)
    found: dict[str, list[float]] = {"all_pairs": [], "same_kind": [], "other_kind": []}
    references = list(dict.fromkeys(names))
    for name in references:
        own_places = np.array(names) == name
        values = matrix.spearman.values[np.ix_(own_places, own_places)]
        for pairs, value in by_kind(values, np.array(kinds)[own_places]).items():
            found[pairs].append(value)
    return Agreement(references, **found, matrix=matrix)


def by_kind(values: np.ndarray, kinds: Sequence[str] | np.ndarray) -> dict[str, float]:
    """Mean over all pairs of prompts, over those of one kind, and over those of two kinds.

    Args:
        values: (prompt, prompt), of which the part above the diagonal counts.
        kinds: of each prompt.

    Returns:
        "all_pairs", "same_kind" and "other_kind"; NaN where there are no such pairs.
    """
    named = np.asarray(kinds)
    first, second = np.triu_indices(len(named), 1)
    pairs, same = values[first, second], named[first] == named[second]
    chosen = {"all_pairs": np.ones_like(same), "same_kind": same, "other_kind": ~same}
    return {
        name: float(pairs[each].mean()) if each.any() else np.nan for name, each in chosen.items()
    }
