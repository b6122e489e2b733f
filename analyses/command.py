"""What all scripts share: arguments, the probe, the store, and how results are written."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from recast_probe.figures import save_figure
from recast_probe.io import without_nan, write_json
from recast_probe.probe import Probe
from recast_probe.provenance import versions
from recast_probe.studies import Store, save_table

SIZES = {"subjects": (100, 3), "prompts": (3, 2), "steps": (28, 4)}


def parse(
    description: str | None,
    name: str,
    arguments: list[str] | None = None,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    *,
    metrics: bool = False,
) -> Any:
    """The arguments that every script takes.

    Args:
        sizes: default and quick subjects, prompts and steps, where they are not `SIZES`.
        metrics: whether the script takes `--metrics`.
    """
    parser = argparse.ArgumentParser(prog=f"python -m analyses.{name}", description=description)
    parser.add_argument("--model", default="pocket", help="folder, repository, or pocket")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--subjects", type=int, help="held-out subjects of PocketBench")
    parser.add_argument("--prompts", type=int, help="prompts for each subject")
    if metrics:
        parser.add_argument("--metrics", default="", help="further ones, as dinov2,clip-i,kid")
    parser.add_argument("--steps", type=int, help="denoising steps")
    parser.add_argument("--quick", action="store_true", help="few subjects and steps, for a trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out") / name)
    chosen = parser.parse_args(arguments)
    for each, (whole, quick) in {**SIZES, **(sizes or {})}.items():
        if getattr(chosen, each) is None:
            setattr(chosen, each, quick if chosen.quick else whole)
    return chosen


def open_probe(chosen: Any) -> Probe:
    """The probe of the chosen model."""
    if chosen.model == "pocket":
        return Probe.pocket()
    return Probe.from_pretrained(chosen.model, chosen.dtype, chosen.device)


def open_store(chosen: Any, probe: Probe, **settings: Any) -> Store:
    """The runs of this script with these settings, in `--out`/runs."""
    facts = {
        "model": probe.name,
        "fingerprint": probe.fingerprint,
        "versions": versions(),
        "steps": chosen.steps,
        "seed": chosen.seed,
        **{name: described(value) for name, value in settings.items()},
    }
    return Store(chosen.out / "runs", facts)


def described(value: Any) -> Any:
    """Dataclasses and mappings of them, ready for JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"name": type(value).__name__, **{k: described(v) for k, v in vars(value).items()}}
    if isinstance(value, dict):
        return {name: described(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [described(each) for each in value]
    return value


def finish(
    chosen: Any,
    store: Store,
    tables: dict[str, pd.DataFrame],
    summary: dict[str, Any],
    figures: dict[str, Figure],
) -> None:
    """Write tables (parquet, CSV), `summary.json` and figures (PNG, PDF) to `--out`."""
    facts = store.settings | {"subjects": chosen.subjects, "prompts": chosen.prompts}
    for name, table in tables.items():
        save_table(table, chosen.out / name, facts)
    for name, figure in figures.items():
        save_figure(figure, chosen.out / name)
    write_json(chosen.out / "summary.json", without_nan(facts | summary))
