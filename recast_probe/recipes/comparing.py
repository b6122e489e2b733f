"""What the tables of methods share: the runs, the rows, the figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from recast_probe.diagnostics import Interval
from recast_probe.errors import InputError
from recast_probe.figures import plot_arms
from recast_probe.metrics import Metric, metric_settings, metrics_of
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import bench, finder_of
from recast_probe.recipes.page import Page, Section, higher
from recast_probe.recipes.results import finish, open_store
from recast_probe.recipes.words import about, counted
from recast_probe.studies import (
    Outcome,
    Store,
    Unit,
    compare,
    markdown,
    means,
    reference_gain,
    retention,
    run_study,
)
from recast_probe.studies.arms.language import TextArm, own_arms
from recast_probe.studies.comparison import FULL, Arm, Comparison, PlannedArm, units
from recast_probe.studies.engine.options import end_of_shard, engine_options
from recast_probe.studies.extra_metrics import complete, extra_columns, per_run, set_distances
from recast_probe.studies.named_method import ORACLE
from recast_probe.studies.reference_gain import UNDEFINED
from recast_probe.studies.scored_area import (
    changes_subject,
    check_oracle,
    scored_against,
    scored_on,
)
from recast_probe.studies.tables import p_value, row_interval

SCORES = ("identity", "identity_to_full", "colour")
GAIN = "of what the reference adds"


def run_arms(
    chosen: Any,
    probe: Probe,
    arms: Mapping[str, Arm | PlannedArm],
    more: Callable[[Any, Outcome], dict[str, Any]] | None = None,
    folder: Path | None = None,
    rests_on: Callable[[Any], dict[str, str]] | None = None,
) -> tuple[pd.DataFrame, Store]:
    """Every arm on every case; what is in `--out` already is read back.

    Args:
        more: further columns of the table, of a case and what an arm gave.
        folder: of another script whose runs are taken and added to; its own by default.
        rests_on: further labels of a case, of what else its runs rest on.
    """
    cases, own = bench(chosen), chosen_arms(chosen)
    if twice := next((name for name in own if name in arms), None):
        raise InputError(f"The study has the arm {twice!r} itself; leave --arm {twice} out.")
    arms = {**arms, **{name: arm.planned(probe) for name, arm in own.items()}}
    check_oracle(cases, {name: getattr(arm, "method", None) for name, arm in arms.items()})
    metrics = further_metrics(chosen)
    stored = [metric_settings(each) for each in per_run(metrics)]
    # a study without further metrics and local edits stays what it was
    extra: dict[str, Any] = {"metrics": stored} if stored else {}
    if any(changes_subject(case) and case.target is not None for case in cases):
        extra["local_edits"] = "scored against the target"
    store = open_store(chosen, probe, folder, arms=dict(arms), **extra)
    comparison = Comparison(
        probe, arms, store, steps=chosen.steps, metrics=metrics, finder=finder_of(chosen)
    )

    named = units(cases)
    if rests_on is not None:
        labels = [{**each.labels, **rests_on(each.payload)} for each in named]
        named = [replace(each, labels=all_of) for each, all_of in zip(named, labels, strict=True)]
    perform = _Performer(comparison, more)
    table = run_study(named, list(arms), perform, store, **engine_options(chosen))
    end_of_shard(chosen, store)
    return table, store


@dataclass(frozen=True)
class _Performer:
    """A comparison whose outcomes get further columns."""

    comparison: Comparison
    more: Callable[[Any, Outcome], dict[str, Any]] | None

    def arm_settings(self, arms: Sequence[str]) -> dict[str, dict[str, Any]]:
        return self.comparison.arm_settings(arms)

    def __call__(self, unit: Unit, missing: Sequence[str]) -> Iterator[Outcome]:
        for outcome in self.comparison(unit, missing):
            found = {} if self.more is None else self.more(unit.payload, outcome)
            yield replace(outcome, values={**outcome.values, **found})


def chosen_arms(chosen: Any) -> dict[str, TextArm]:
    """The arms of `--arm` by their names, where the study takes them.

    Raises:
        InputError: one that cannot be read, or one that is there twice.
    """
    return own_arms(getattr(chosen, "arm", ()))


def check_own_arms(chosen: Any) -> None:
    """Check the arms of `--arm` without a model.

    Raises:
        InputError: as `chosen_arms`; one ranks by a mask that is not there.
    """
    oracles = {name: ORACLE for name, arm in chosen_arms(chosen).items() if arm.needs_mask}
    if oracles:
        check_oracle(bench(chosen), oracles)


def summarise(table: pd.DataFrame, baseline: str, seed: int) -> list[dict[str, Any]]:
    """One row an arm: scores, retention of identity, difference to the baseline with p-values.

    Headings say what local edits were scored against. Retention stands beside the share of what
    the reference adds, where there is a run without it.
    """
    scores = {name: means(table, name, seed=seed) for name in SCORES}
    further = dict(mean_of_complete(table, name, seed) for name in extra_columns(table))
    kept = retention(table, "identity", seed=seed)
    against = compare(table, "identity", baseline, seed=seed)
    steps = table.groupby("arm")["token_steps"].mean()
    # the middle one: a machine that paused once must not make an arm look slow
    seconds = table.groupby("arm")["seconds"].median()
    gained = reference_gain(table, "identity", seed=seed) if "none" in steps.index else None
    edits = scored_against(table)
    rows = []
    for arm in scores["identity"].index:
        row: dict[str, Any] = {"arm": arm, "token-steps": round(float(steps[arm]))}
        for name, found in scores.items():
            heading = name.replace("_", " ")
            if edits is not None and name in ("identity", "colour"):
                heading += f" ({edits})"
            itself = arm == FULL and name.endswith("_to_full")
            row[heading] = "1" if itself else row_interval(found.loc[arm])
        for name, known in further.items():
            values = None if known is None else known.loc[arm]
            row[name] = "-" if values is None else row_interval(values)
        row["retention"] = row_interval(kept.loc[arm], "retention") if arm in kept.index else "1"
        if gained is not None:
            row[GAIN] = _gain(gained, arm)
        row[f"minus {baseline}"], row["p (Holm)"] = "-", "-"
        if arm in against.index:
            other = against.loc[arm]
            row[f"minus {baseline}"] = row_interval(other, "difference")
            row["p (Holm)"] = p_value(other["p_holm"])
        row["seconds"] = f"{seconds[arm]:.2f}"
        scored = scored_on(table[table["arm"] == arm])
        rows.append(row if scored is None else row | {"scored on": scored})
    return rows


def _gain(gained: pd.DataFrame, arm: str) -> str:
    """An arm's share of what the reference adds; full and none are the ends of the scale."""
    if gained["gain"].isna().all():
        return UNDEFINED
    ends = {"full": "1", "none": "0"}
    return ends[arm] if arm in ends else row_interval(gained.loc[arm], "gain")


def mean_of_complete(table: pd.DataFrame, name: str, seed: int) -> tuple[str, pd.DataFrame | None]:
    """Means of a further metric where every arm has a value; the heading says where not all do."""
    rows, arms = complete(table, name), table["arm"].nunique()
    cases, known = len(table) // arms, len(rows) // arms
    heading = name.replace("_", " ")
    if known < cases:
        heading += f" ({known} of {cases} cases)"
    return heading, means(rows, name, seed=seed) if known else None


def further_metrics(chosen: Any) -> list[Metric]:
    """What `--metrics` names, where the study takes it."""
    return list(_loaded(getattr(chosen, "metrics", ""), chosen.device))


@lru_cache(maxsize=1)
def _loaded(named: str, device: str) -> tuple[Metric, ...]:
    return tuple(metrics_of(named, device))


def add_set_distances(rows: list[dict[str, Any]], chosen: Any, store: Store) -> None:
    """Put a column into the rows for every metric of sets: all outputs against the full run's."""
    arms = [row["arm"] for row in rows]
    distances = set_distances(further_metrics(chosen), store, units(bench(chosen)), arms)
    for name, found in distances.items():
        for row in rows:
            row[f"{name} to full"] = f"{found[row['arm']]:.4g}" if row["arm"] in found else "-"


def one_table(
    chosen: Any,
    probe: Probe,
    arms: Mapping[str, Arm | PlannedArm],
    baseline: str,
    title: str,
    text: str,
    compared: Mapping[str, str],
    measured: Mapping[str, tuple[str, str]] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Run the arms, print their table, write it, its figure and its page to `--out`.

    Args:
        title, text: of the page.
        compared: arms that the page holds against the baseline in words, and what it calls them.
        measured: names of differences for `recast-probe claims`, each of two arms.
    """
    table, store = run_arms(chosen, probe, arms)
    found = {"table": summarise(table, baseline, chosen.seed)}
    add_set_distances(found["table"], chosen, store)
    print(markdown(found["table"]))
    chart = figure(table, probe.name, chosen.seed, "equal token-steps")
    apart = compare(table, "identity", baseline, seed=chosen.seed)
    says = [higher(words, baseline, corrected_row(apart, arm)) for arm, words in compared.items()]
    section = Section(
        text=f"{counted(table)} {text} {about(table)}",
        rows=found["table"],
        figure="identity",
        alt="Identity of every arm, with its interval",
        says=says,
    )
    summary = found | {
        "measured": {
            name: difference(table, *pair, chosen.seed) for name, pair in (measured or {}).items()
        }
    }
    finish(chosen, store, {"runs": table}, summary, {"identity": chart}, Page(title, [section]))
    return found


def corrected_row(compared: pd.DataFrame, arm: str) -> dict[str, float]:
    """A row of `compare` as a finding: mean, low, high, subjects, the p-value, and p_holm, which is
    corrected over the arms of the table."""
    row = compared.loc[arm]
    names = ("low", "high", "p_value", "p_holm", "subjects")
    return {"mean": float(row["difference"]), **{name: float(row[name]) for name in names}}


def difference(
    table: pd.DataFrame, better: str, worse: str, seed: int, value: str = "identity"
) -> dict[str, float]:
    """A score of one arm minus another's: mean, low, high, p_value, effect_size, subjects."""
    pair = table[table["arm"].isin([better, worse])]
    row = compare(pair, value, worse, seed=seed).loc[better]
    names = ("low", "high", "p_value", "effect_size", "subjects")
    return {"mean": float(row["difference"]), **{name: float(row[name]) for name in names}}


def kept_by(table: pd.DataFrame, arm: str, seed: int) -> dict[str, Any]:
    """What `recast-probe claims` reads of an arm: retention, and its share of what the reference
    adds where there is a run without it."""
    found = {"retention": retention(table, "identity", seed=seed).loc[arm]}
    if "none" in set(table["arm"]):
        gained = reference_gain(table, "identity", seed=seed).loc[arm]
        found |= {} if pd.isna(gained["gain"]) else {"reference_gain": gained}
    names = {"retention": "retention", "reference_gain": "gain"}
    return {
        name: {"mean": float(row[names[name]])}
        | {part: float(row[part]) for part in ("low", "high", "subjects")}
        for name, row in found.items()
    }


def figure(table: pd.DataFrame, model: str, seed: int, note: str) -> Figure:
    """Identity of every arm, each faint line one subject."""
    found = means(table, "identity", seed=seed)
    subjects = table.groupby(["arm", "subject"])["identity"].mean()
    intervals = {
        str(arm): Interval(row["mean"], row["low"], row["high"], 0.95, int(row["subjects"]))
        for arm, row in found.iterrows()
    }
    return plot_arms(
        {arm: subjects[arm].tolist() for arm in intervals},
        intervals,
        metric=metric_name(table),
        selection=f"{model}, {len(table) // len(found)} runs an arm, {note}",
    )


def metric_name(table: pd.DataFrame) -> str:
    """The identity score in words, with what it was scored on where that is not the given masks,
    and against where that is not the reference."""
    scored, edits = scored_on(table), scored_against(table)
    words = ("Masked " if scored is None else "") + "MobileNetV2 cosine to the reference"
    return "\n".join(part for part in (words, scored, edits) if part is not None)
