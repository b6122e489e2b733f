"""Do attention sinks matter? They are cut, and as many random tokens of the same groups."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from recast_probe._utils.checks import check_indices, check_int
from recast_probe._utils.provenance import versions
from recast_probe.datasets import Case
from recast_probe.diagnostics import Sinks
from recast_probe.errors import InputError
from recast_probe.interventions import Intervention, Knockout
from recast_probe.interventions.base import describe_tokens
from recast_probe.layout import GROUPS
from recast_probe.metrics.metric_types import ImageMetric, Whole
from recast_probe.probe import Probe
from recast_probe.studies.comparison import Arm, Comparison, PlannedArm, units
from recast_probe.studies.engine import run_study
from recast_probe.studies.statistics import compare, means
from recast_probe.studies.store import Store
from recast_probe.studies.tables import p_value, row_interval

CHOSEN, RANDOM = "chosen cut", "random cut"
CHANGE = "change-whole_to_full"
MEASURES = {
    CHANGE: "change of the whole image",
    "identity": "identity",
    "colour": "colour",
    "target_error": "target error",
}


class Change(ImageMetric):
    """Mean absolute difference of two pictures of one size, as a fraction of a pixel's range."""

    name, higher_is_better, aligned = "change", False, True

    def score(self, image: Image.Image, mask: Any, reference: Image.Image, _: Any) -> float:
        """The number for one pair, over the whole picture."""
        one, other = (np.asarray(each, np.float64) for each in (image, reference))
        return float(np.abs(one - other).mean() / 255)

    def provenance(self) -> dict[str, Any]:
        """The metric's name."""
        return {"metric": self.name}


@dataclass(frozen=True, eq=False)
class SinkKnockout:
    """What cutting sinks does, beside cutting as many random tokens.

    Attributes:
        runs: one row a run: subject, prompt, arm and its scores. The arms are "full", "chosen cut"
            and "random cut 0", "random cut 1", ...
        effects: by measure, the paired differences "chosen cut" minus the mean of the random cuts,
            as `studies.compare` has them.
        tokens: by group, what was cut.
        to_groups: the groups that did not see them.
    """

    runs: pd.DataFrame
    effects: pd.DataFrame
    tokens: Mapping[str, tuple[int, ...]]
    to_groups: tuple[str, ...]

    def rows(self) -> list[dict[str, str]]:
        """One row a measure: the full run, sinks cut, random tokens cut, and the difference."""
        table, rows = _with_mean_of_random(self.runs), []
        for name, found in self.effects.iterrows():
            mean = means(table, str(name))
            rows.append(
                {
                    "measure": MEASURES[str(name)],
                    **{arm: row_interval(mean.loc[arm]) for arm in mean.index},
                    "chosen minus random": row_interval(found, "difference"),
                    "p": p_value(found["p_value"]),
                }
            )
        return rows

    def __repr__(self) -> str:
        count = sum(map(len, self.tokens.values()))
        return f"SinkKnockout({count} tokens, {self.runs['subject'].nunique()} subjects)"


def sink_knockout(
    probe: Probe,
    cases: Sequence[Case],
    found: Sinks | Mapping[str, Sequence[int]],
    *,
    to_groups: Sequence[str] | None = None,
    random_sets: int = 4,
    steps: int = 28,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: bool = True,
) -> SinkKnockout:
    """Cut sinks, and as many random tokens of the same groups, in the same runs.

    A token that draws attention need not bring anything: its value may be small. If cutting sinks
    changes the image more than cutting random tokens does, they matter. Every arm of a case has the
    same reference, prompt and noise; keys are left out of the softmax in all blocks, heads and
    steps. Cases other than those that the sinks were found in make the comparison an honest one.

    Args:
        cases: of a benchmark, such as ``rp.pocket.bench.pocket_bench(8, 1)``; whole subjects are
            the independent unit.
        found: what `rp.sinks` gave, or indices by group ("text", "generation" or "reference"); a
            repeated index counts once.
        to_groups: groups that do not see them; by default those whose attention was recorded, and
            "generation" for indices.
        random_sets: for each case so many random sets, whose mean the sinks are held against.
        seed: of the random sets.
        folder: keeps every run, so that a study that was cut short goes on; None keeps none.

    The other arguments are those of ``Probe.generate``.

    Raises:
        InputError: no sinks, no cases, a group with fewer other tokens than sinks, or settings that
            do not fit; nothing has run.
        VerificationError: a check of exactness failed during a run.

    Examples:
        >>> from recast_probe.datasets import load_benchmark
        >>> probe, cases = rp.Probe.pocket(), load_benchmark("pocket", subjects=2, prompts=1)
        >>> sink_knockout(
        ...     probe, cases, {"text": [0]}, random_sets=1, steps=2, progress=False
        ... ).tokens
        {'text': (0,)}
    """
    random_sets = check_int("random_sets", random_sets, 1)
    seed = check_int("seed", seed, 0)
    if not cases:
        raise InputError("There are no cases to cut sinks in.")
    if isinstance(found, Sinks):
        tokens = {group: tuple(own) for group in GROUPS if (own := found.of_group(group))}
        targets = (found.queries,) if to_groups is None else tuple(to_groups)
    else:
        # each token once, as it is cut: as many random ones are drawn as these are
        chosen = {
            group: check_indices(f"The tokens of {group!r}", at, empty=True)
            for group, at in found.items()
        }
        tokens = {group: tuple(at) for group, at in chosen.items() if at}
        targets = ("generation",) if to_groups is None else tuple(to_groups)
    if not tokens:
        raise InputError(
            "There are no sinks to cut. To cut what comes nearest, find sinks with fewer times= or "
            "a smaller share=, or give indices by group, such as {'text': [0]}."
        )
    parts = [group for group in tokens if group.startswith("reference_")]
    if "reference" in tokens and parts:
        raise InputError(
            f"The tokens of 'reference' and of {parts[0]!r} overlap, so one could be cut twice; "
            "give either."
        )
    layout = probe.layout(cases[0].reference, cases[0].prompt)
    sizes = {}
    for group, at in tokens.items():
        span = layout.span(group)
        sizes[group] = span.stop - span.start
        check_indices("tokens", at, sizes[group], of=f"{group} tokens")
        if sizes[group] < 2 * len(at):
            raise InputError(
                f"{len(at)} of {sizes[group]} {group} tokens are sinks, so there are not as many "
                "others to cut at random; find fewer by a higher times= or share=."
            )
    arms: dict[str, Arm | PlannedArm] = {"full": Arm("full")}
    arms[CHOSEN] = PlannedArm(_settings(tokens, targets), lambda _: _cuts(tokens, targets))
    for number in range(random_sets):
        arms[f"{RANDOM} {number}"] = _random_arm(tokens, sizes, targets, (seed, number))
    metric = Whole(Change())
    settings = {
        "model": probe.name,
        **probe.identity(strict=folder is not None),
        "versions": versions(),
        "steps": steps,
        "arms": {name: getattr(arm, "settings", {"method": "full"}) for name, arm in arms.items()},
    }
    place = nullcontext(folder) if folder is not None else tempfile.TemporaryDirectory()
    with place as there:
        store = Store(Path(there), settings)
        kept = folder is not None
        comparison = Comparison(probe, arms, store, steps=steps, metrics=[metric], kept=kept)
        runs = run_study(units(cases), list(arms), comparison, store, progress=progress)
    table = _with_mean_of_random(runs)
    effects = [
        compare(table[table["arm"] != "full"], name, RANDOM).loc[CHOSEN].rename(name)
        for name in MEASURES
        if name in table and table[name].notna().all()
    ]
    return SinkKnockout(runs, pd.DataFrame(effects), tokens, targets)


def _with_mean_of_random(runs: pd.DataFrame) -> pd.DataFrame:
    """The random arms of a unit as one, the mean of their scores."""
    named = runs.assign(arm=[RANDOM if arm.startswith(RANDOM) else arm for arm in runs["arm"]])
    scores = [name for name in MEASURES if name in runs]
    return named.groupby(["subject", "prompt", "arm"], sort=False)[scores].mean().reset_index()


def _random_arm(
    tokens: Mapping[str, tuple[int, ...]],
    sizes: Mapping[str, int],
    targets: tuple[str, ...],
    seed: tuple[int, int],
) -> PlannedArm:
    """Cuts as many others of each group, drawn anew for every case."""

    def plan(case: Case) -> list[Intervention]:
        random, drawn = np.random.default_rng((*seed, case.seed)), {}
        for group, at in tokens.items():
            others = np.setdiff1d(np.arange(sizes[group]), at)
            drawn[group] = tuple(np.sort(random.choice(others, len(at), replace=False)).tolist())
        return _cuts(drawn, targets)

    return PlannedArm({**_settings(tokens, targets), "random": list(seed)}, plan)


def _cuts(tokens: Mapping[str, tuple[int, ...]], targets: Sequence[str]) -> list[Intervention]:
    return [Knockout(group, to, tokens=at) for group, at in tokens.items() for to in targets]


def _settings(tokens: Mapping[str, tuple[int, ...]], targets: Sequence[str]) -> dict[str, Any]:
    named = {group: describe_tokens(at) for group, at in tokens.items()}
    return {
        "cut": {group: {"count": n, "sha256": digest} for group, (n, digest) in named.items()},
        "to_groups": list(targets),
    }
