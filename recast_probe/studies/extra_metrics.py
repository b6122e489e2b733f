"""Metrics by name in a comparison: a column for each, and distances between arms as sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from PIL import Image

from recast_probe.datasets import Case
from recast_probe.errors import InputError
from recast_probe.metrics import ImageMetric, Metric, SetMetric, TextMetric, metric_names
from recast_probe.metrics.registry import is_aligned
from recast_probe.studies.engine import Unit
from recast_probe.studies.engine.unit_runs import record_key
from recast_probe.studies.scored_area import ScoredArea
from recast_probe.studies.store import Store

TO_FULL = "_to_full"


def column(metric: Metric) -> str:
    """The name of a metric's column: metrics of aligned pictures compare with the full run."""
    return metric.name + (TO_FULL if getattr(metric, "aligned", False) else "")


def extra_columns(columns: Iterable[str]) -> list[str]:
    """Those of a table's columns that are further metrics; colour is in every table."""
    known = {name + (TO_FULL if is_aligned(name) else "") for name in metric_names()}
    return [name for name in columns if name in known and name != "colour"]


def complete(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """The rows of those units that have a value in every arm, such as a face in every image."""
    numbers = pd.to_numeric(table[value])
    known = numbers.notna().groupby([table["subject"], table["prompt"]]).transform("all")
    return table.assign(**{value: numbers})[known]


def per_run(metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics that have a value for every run."""
    return [each for each in metrics if not isinstance(each, SetMetric)]


def measured(
    metrics: Sequence[Metric],
    case: Case,
    image: Image.Image,
    full: Image.Image,
    area: ScoredArea,
) -> dict[str, float]:
    """One output by every metric that has a value for every run.

    Image metrics compare it with the reference, or a local edit's target; those of aligned
    pictures with the full run's output, text metrics with the prompt.
    """
    found = {}
    for each in per_run(metrics):
        if isinstance(each, TextMetric):
            value = each.score_text(image, case.prompt)
        elif isinstance(each, ImageMetric) and each.aligned:
            value = each.score(image, area.output, full, area.full)
        elif isinstance(each, ImageMetric):
            value = each.score(image, area.output, area.picture, area.wanted)
        else:
            raise InputError(f"{each!r} is no image, text or set metric.")
        found[column(each)] = value
    return found


def set_distances(
    metrics: Sequence[Metric],
    store: Store,
    units: Sequence[Unit],
    arms: Iterable[str],
    baseline: str = "full",
) -> Mapping[str, dict[str, float]]:
    """By set metric and arm, the distance of all its outputs to the baseline's.

    The images are read back from the store. Raises InputError where one is missing.
    """
    chosen = [each for each in metrics if isinstance(each, SetMetric)]
    if not chosen:
        return {}
    others = [arm for arm in arms if arm != baseline]
    images = {arm: _images(store, units, arm) for arm in [baseline, *others]}
    return {
        each.name: {arm: each.distance(images[arm], images[baseline]) for arm in others}
        for each in chosen
    }


def _images(store: Store, units: Sequence[Unit], arm: str) -> list[Any]:
    found = []
    for unit in units:
        record = store.load(record_key(unit, arm))
        if record is None:
            raise InputError(f"The run {dict(unit.labels)} of {arm!r} is not in {store.folder}.")
        found.append(record.image())
    return found
