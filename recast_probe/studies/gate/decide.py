"""Decides whether a way of saving work loses too little to matter, and what else costs as little.

The full run and the method are run on the same references, prompts, seeds and noise, subject by
subject, until `non_inferiority` decides or the subjects are used up. Then every control of
`equal_cost` is run on those subjects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recast_probe._utils.checks import check_int
from recast_probe.content.description import describe_setting
from recast_probe.cost_model import RunPlan
from recast_probe.datasets import Case
from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention
from recast_probe.masks import MaskFinder, finder_identity
from recast_probe.metrics import Metric, SetMetric, metric_settings, metrics_of
from recast_probe.probe import Probe
from recast_probe.studies.comparison import FULL, units
from recast_probe.studies.engine import run_study
from recast_probe.studies.extra_metrics import column
from recast_probe.studies.gate.equal_cost import CONTROLS, NONE
from recast_probe.studies.gate.group_sequential import boundaries, check_alpha, planned_looks
from recast_probe.studies.gate.loss_limit import Limit
from recast_probe.studies.gate.noninferiority import ALPHA, NonInferiority, non_inferiority
from recast_probe.studies.gate.plans import METHOD, GatePlans, available_controls
from recast_probe.studies.gate.repeated_intervals import repeated_interval, repeated_p_value
from recast_probe.studies.gate.result import BEATEN, BEATS, UNDECIDED, Against, ArmCost, Gate
from recast_probe.studies.gate.runs import (
    GateRuns,
    fewer_steps,
    interventions_of,
    method_label,
)
from recast_probe.studies.gate.settings import gate_settings
from recast_probe.studies.scored_area import check_oracle
from recast_probe.studies.statistics import UNITS, holm, means, paired
from recast_probe.studies.store import Store

# in every table of a comparison, without a metric of its own
BUILT_IN = ("identity", "colour")


def gate(
    probe: Probe,
    cases: Sequence[Case],
    method: str | Sequence[Intervention],
    *,
    limit: str | float | Limit,
    out: str | Path,
    metric: str | Metric = "identity",
    steps: int = 28,
    budget: Any = None,
    blocks: Any = "paper",
    refresh: int | Sequence[int] | None = None,
    computed: int | float | Sequence[int] | None = None,
    plan: Callable[[RunPlan], RunPlan] | None = None,
    controls: Sequence[str] = CONTROLS,
    looks: int | Sequence[int] = 5,
    alpha: float = ALPHA,
    seed: int = 0,
    finder: MaskFinder | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
    announce: Callable[[str], None] | None = None,
) -> Gate:
    """Does a saving lose less than a limit, and does it beat what else costs as little?

    The number of subjects is fixed before the first run: all of `cases`, in an order drawn from the
    seed. Verdicts hold for the plan they were made with, so `out` refuses another limit, metric or
    schedule of looks than the one it was begun with. Runs that are there are not repeated.

    Args:
        cases: of a benchmark, see `recast_probe.datasets`.
        method: one of `interventions.METHODS`, "fewer-steps" (the whole model in `computed` of the
            steps), or interventions.
        limit: the loss that is still allowed: 0.03 of the metric, or "8%" of the full run's mean.
        out: folder; the runs lie in `out`/runs.
        metric: "identity" (masked MobileNetV2), "colour", or a metric of
            `recast_probe.metrics.metric` of which more is better.
        steps: denoising steps of the full run.
        budget: tokens that stay, for the methods that drop some; Eq. 4's by default.
        blocks, refresh, computed: of the method, see `interventions.methods.method`.
        plan: from the full run's RunPlan to the method's, for interventions whose work does not
            follow from their settings.
        controls: some of `equal_cost.CONTROLS`. Without "no reference" nobody knows what a failure
            loses, and "passes" allows for one like the worst that was seen.
        looks: how many looks, or at which numbers of subjects.
        alpha: one-sided error rate of "passes", and of "fails", over all looks.
        seed: of the order of the subjects.
        finder: as of `Comparison`.
        settings: more that decides the outcome of the runs, for the store.
        progress: bars on standard error.
        announce: told how long it will take, once the first case was run, and each look's result.

    Raises:
        InputError: a setting that cannot be used, or runs without a score.

    Examples:
        >>> import tempfile
        >>> probe = rp.Probe.tiny("flux-kontext")
        >>> cases = rp.datasets.load_benchmark("pocket", subjects=2, prompts=1)
        >>> with tempfile.TemporaryDirectory() as place:
        ...     found = gate(probe, cases, "reuse", limit=0.03, out=place, steps=3,
        ...                  controls=["fewer steps"], progress=False)
        >>> found.verdict, [(arm.arm, arm.size) for arm in found.arms][1:]
        ('cannot tell', [('reuse', '3 steps'), ('fewer steps', '2 of 3 steps')])
    """
    limit = Limit.parse(limit)
    score, metrics = _metric(metric)
    unknown = [name for name in controls if name not in CONTROLS]
    if unknown:
        raise InputError(f"There is no control {unknown[0]!r}; there is {', '.join(CONTROLS)}.")
    steps, alpha = check_int("steps", steps, 1), check_alpha(alpha)
    label = method_label(method)
    groups = _by_subject(cases, check_int("seed", seed, 0))
    if not groups:
        raise InputError("A gate needs cases.")
    sizes = planned_looks(len(groups), looks)
    check_oracle(list(cases), {label: method if isinstance(method, str) else None})
    plans = GatePlans(
        probe,
        interventions_of(probe, method, budget, blocks, refresh, computed),
        steps=steps,
        plan=plan,
        fewer=fewer_steps(method, computed, steps),
    )
    chosen, left_out = available_controls(plans, groups[0][0], controls, method)
    everything = units([case for group in groups for case in group])
    given = {
        "method": label,
        "interventions": None if isinstance(method, str) else describe_setting(method, strict=True),
        "method_settings": describe_setting(
            {"budget": budget, "blocks": blocks, "refresh": refresh, "computed": computed},
            strict=True,
        ),
        "metric": score,
        "metrics": [metric_settings(each) for each in metrics],
        "limit": describe_setting(limit, strict=True),
        "looks": list(sizes),
        "alpha": alpha,
        "order_seed": seed,
        "finder": None if finder is None else finder_identity(finder),
        **(settings or {}),
    }
    store = Store(Path(out) / "runs", gate_settings(plans, everything, chosen, given))
    runs = GateRuns(plans, store, metrics=metrics, finder=finder)
    # what a failure loses is measured by the run without the reference
    arms = [FULL, METHOD, *([NONE] if NONE in chosen else [])]
    if announce is not None:
        table = run_study(everything[:1], arms, runs, store, progress=progress)
        announce(_time(table, groups, sizes, len(chosen)))
    test = None
    for count in sizes:
        now = everything[: sum(map(len, groups[:count]))]
        table = run_study(now, arms, runs, store, progress=progress)
        test = _tested(table, score, limit, sizes, alpha, NONE in chosen, groups[:count])
        if announce is not None:
            announce(f"Look {test.look} of {len(sizes)}, {count} subjects: {test.verdict}.")
        if test.verdict != "cannot tell":
            break
    assert test is not None
    arms += [name for name in chosen if name not in arms]
    table = run_study(now, arms, runs, store, progress=progress)
    return _result(runs, label, score, test, table, left_out, groups)


def _metric(metric: str | Metric) -> tuple[str, list[Metric]]:
    """The column of a metric, and the metrics that make it."""
    if metric in BUILT_IN:
        return str(metric), []
    found = metrics_of([metric])
    if len(found) != 1 or isinstance(found[0], SetMetric) or not found[0].higher_is_better:
        raise InputError(
            f"A gate needs one metric that has a value for each run and of which more is better, "
            f"such as identity, dinov2 or ssim, not {metric!r}."
        )
    return column(found[0]), list(found)


def _by_subject(cases: Sequence[Case], seed: int) -> list[list[Case]]:
    """The cases of each subject, the subjects in an order that is drawn."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        found.setdefault(case.subject, []).append(case)
    groups = list(found.values())
    return [groups[each] for each in np.random.default_rng(seed).permutation(len(groups))]


def _time(table: pd.DataFrame, groups: Sequence[Any], sizes: Sequence[int], controls: int) -> str:
    """How long it takes, from the runs of the first case."""
    each = float(table["seconds"].astype(float).median())
    counts = [sum(map(len, groups[:size])) * (2 + controls) for size in (sizes[0], sizes[-1])]
    least, most = (f"{max(1, count * each / 60):.0f} min" for count in counts)
    return (
        f"{counts[0]} to {counts[1]} runs of about {each:.2g} s: about {least} if the first look, "
        f"at {sizes[0]} subjects, decides, and {most} if all {sizes[-1]} are needed."
    )


def _scores(table: pd.DataFrame, score: str, groups: Sequence[Sequence[Case]]) -> pd.DataFrame:
    """(subject) by arm: the mean over the subject's prompts, in the order of the runs."""
    numbers = table.assign(**{score: pd.to_numeric(table[score])})
    found = paired(numbers, score, "arm", UNITS).groupby(level=0).mean()
    return found.loc[[group[0].subject for group in groups]]


def _tested(
    table: pd.DataFrame,
    score: str,
    limit: Limit,
    sizes: Sequence[int],
    alpha: float,
    with_none: bool,
    groups: Sequence[Sequence[Case]],
) -> NonInferiority:
    """The test on what there is; a failed subject loses all that the reference adds."""
    scores = _scores(table, score, groups)
    return non_inferiority(
        scores[FULL].to_numpy(),
        scores[METHOD].to_numpy(),
        limit,
        sizes,
        failure=(scores[FULL] - scores[NONE]).to_numpy() if with_none else 0.0,
        alpha=alpha,
    )


def _result(
    runs: GateRuns,
    label: str,
    score: str,
    test: NonInferiority,
    table: pd.DataFrame,
    left_out: Mapping[str, str],
    groups: Sequence[Sequence[Case]],
) -> Gate:
    scores = _scores(table, score, groups[: test.subjects])
    known = means(table.assign(**{score: pd.to_numeric(table[score])}), score)
    names = [name for name in (FULL, METHOD, *CONTROLS) if name in scores.columns]
    flop = {name: float(table.loc[table["arm"] == name, "flop"].mean()) for name in names}
    sizes = {name: table.loc[table["arm"] == name, "size"].unique() for name in names}
    costs = tuple(
        ArmCost(
            label if name == METHOD else name,
            sizes[name][0] + (" in the first case" if len(sizes[name]) > 1 else ""),
            flop[name],
            flop[name] / flop[FULL],
            *(float(known.loc[name, part]) for part in ("mean", "low", "high")),
        )
        for name in names
    )
    rename = {METHOD: label}
    return Gate(
        model=runs.probe.name,
        method=label,
        metric=score,
        test=test,
        arms=costs,
        controls=_against(scores, test),
        left_out=left_out,
        scores=scores[names].rename(columns=rename),
        table=table.replace({"arm": rename}),
        provenance=runs.store.settings | {"subjects": [group[0].subject for group in groups]},
    )


def _against(scores: pd.DataFrame, test: NonInferiority) -> tuple[Against, ...]:
    """The method against each control, at the look that decided."""
    names = [name for name in CONTROLS if name in scores.columns]
    fractions = tuple(each / test.looks[-1] for each in test.looks)
    boundary = boundaries(fractions, test.alpha)[test.look - 1]
    differences = [(scores[METHOD] - scores[name]).to_numpy() for name in names]
    values = [repeated_p_value(each, test.looks, test.look) for each in differences]
    found = []
    for name, each, value, adjusted in zip(names, differences, values, holm(values), strict=True):
        low, high, _ = repeated_interval(each, boundary)
        told = not adjusted > ALPHA if adjusted == adjusted else False
        words = UNDECIDED if not told else BEATS if each.mean() > 0 else BEATEN
        found.append(Against(name, float(each.mean()), low, high, value, float(adjusted), words))
    return tuple(found)
