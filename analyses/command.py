"""What all scripts share: arguments, the probe, the store, and how results are written."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analyses.benchmark import add_benchmark, benchmark_settings, takes_everything
from recast_probe._utils.provenance import versions
from recast_probe.figures import save_figure
from recast_probe.files.atomic import without_nan, write_json
from recast_probe.files.envelope import digests, sealed
from recast_probe.probe import Probe
from recast_probe.studies import Store, save_table

SIZES = {"subjects": (100, 3), "prompts": (3, 2), "steps": (28, 4)}


def parse(
    description: str | None,
    name: str,
    arguments: list[str] | None = None,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    options: Mapping[str, dict[str, Any]] | None = None,
    *,
    metrics: bool = False,
) -> Any:
    """The arguments that every script takes.

    Args:
        sizes: default and quick subjects, prompts and steps, where they are not `SIZES`.
        metrics: whether the script takes `--metrics`.
        options: arguments of one script alone, as `add_argument` takes them.
    """
    parser = argparse.ArgumentParser(prog=f"python -m analyses.{name}", description=description)
    parser.add_argument("--model", default="pocket", help="folder, repository, or pocket")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--subjects", type=int, help="subjects (references) of the benchmark")
    parser.add_argument("--prompts", type=int, help="prompts for each subject")
    if metrics:
        parser.add_argument("--metrics", default="", help="further ones, as dinov2,clip-i,kid")
    add_benchmark(parser)
    parser.add_argument("--steps", type=int, help="denoising steps")
    parser.add_argument("--quick", action="store_true", help="few subjects and steps, for a trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out") / name)
    for name_or_flag, settings in (options or {}).items():
        parser.add_argument(name_or_flag, **settings)
    chosen = parser.parse_args(arguments)
    for each, least in {**dict.fromkeys(SIZES, 1), "seed": 0}.items():
        value = getattr(chosen, each)
        if value is not None and value < least:
            parser.error(f"--{each} is {value}; it is at least {least}")
    for each, (whole, quick) in {**SIZES, **(sizes or {})}.items():
        everything = takes_everything(chosen, each, sizes)
        if getattr(chosen, each) is None and not everything:
            setattr(chosen, each, quick if chosen.quick else whole)
    return chosen


def open_store(chosen: Any, probe: Probe, folder: Path | None = None, **settings: Any) -> Store:
    """The runs of this script with these settings, in `folder`/runs, by default `--out`/runs."""
    facts = {
        "model": probe.name,
        **probe.identity(),
        "versions": versions(),
        "steps": chosen.steps,
        "seed": chosen.seed,
        **benchmark_settings(chosen),
        **{name: described(value) for name, value in settings.items()},
    }
    return Store((folder or chosen.out) / "runs", facts)


def described(value: Any) -> Any:
    """Dataclasses and mappings of them, ready for JSON."""
    if hasattr(value, "describe"):
        return described(value.describe())
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
    """Write tables (parquet, CSV), figures (PNG, PDF) and `summary.json` to `--out`.

    The summary holds the digest of every other file and of itself.
    """
    chosen.out.mkdir(parents=True, exist_ok=True)
    facts = store.settings | {"subjects": chosen.subjects, "prompts": chosen.prompts}
    files: list[Path] = []
    for name, table in tables.items():
        files += save_table(table, chosen.out / name, facts)
    for name, figure in figures.items():
        files += save_figure(figure, chosen.out / name)
    described = without_nan({**facts, **summary, "files": digests(files, chosen.out)})
    write_json(chosen.out / "summary.json", sealed(described, "Summary"))
