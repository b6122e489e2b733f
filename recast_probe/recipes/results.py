"""Where the runs of a study lie, and how its results are written."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from recast_probe._utils.provenance import versions
from recast_probe.content.description import describe_setting
from recast_probe.figures import save_figure
from recast_probe.files.atomic import atomic_path, without_nan, write_json
from recast_probe.files.envelope import digests, sealed
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import benchmark_settings
from recast_probe.recipes.page import Page, page_text
from recast_probe.studies import Store, save_table

# what `--measured` tells of the study beside its numbers
TOLD = ("model", "fingerprint", "versions", "subjects", "prompts", "steps", "seed")


def open_store(chosen: Any, probe: Probe, folder: Path | None = None, **settings: Any) -> Store:
    """The runs of a study with these settings, in `folder`/runs, by default `--out`/runs."""
    facts = {
        "model": probe.name,
        **probe.identity(),
        "versions": versions(),
        "steps": chosen.steps,
        "seed": chosen.seed,
        **benchmark_settings(chosen),
        **{name: describe_setting(value, strict=True) for name, value in settings.items()},
    }
    return Store((folder or chosen.out) / "runs", facts)


def finish(
    chosen: Any,
    store: Store,
    tables: dict[str, pd.DataFrame],
    summary: dict[str, Any],
    figures: dict[str, Figure],
    page: Page | None = None,
) -> None:
    """Write tables (parquet, CSV), figures (PNG, PDF), `page.md` and `summary.json` to `--out`.

    The summary holds the digest of every other file and of itself. The page and its figures go to
    `--markdown` too, and the numbers of the summary to `--measured`, which is sealed as well: the
    paper's claims are judged by it.
    """
    chosen.out.mkdir(parents=True, exist_ok=True)
    facts = store.settings | counts(chosen, tables)
    files: list[Path] = []
    for name, table in tables.items():
        files += save_table(table, chosen.out / name, facts)
    for name, figure in figures.items():
        files += save_figure(figure, chosen.out / name)
    if page is not None:
        files.append(chosen.out / "page.md")
        write_page(
            files[-1], page, chosen.command, facts, {name: f"{name}.png" for name in figures}
        )
    summary = without_nan({**facts, **summary, "files": digests(files, chosen.out)})
    write_json(chosen.out / "summary.json", sealed(summary, "Summary"))
    if page is not None and chosen.markdown is not None:
        images = {name: f"{chosen.markdown.stem}-{name}.png" for name in figures}
        for name, file in images.items():
            with atomic_path(chosen.markdown.with_name(file)) as temporary:
                shutil.copyfile(chosen.out / f"{name}.png", temporary)
        command = f"{chosen.command} --markdown {chosen.markdown}"
        write_page(chosen.markdown, page, command, facts, images)
    if chosen.measured is not None:
        held = {name: summary[name] for name in (*TOLD, "measured", "findings") if name in summary}
        write_json(chosen.measured, sealed({"command": chosen.command, **held}, "Measured"))


def counts(chosen: Any, tables: Mapping[str, pd.DataFrame]) -> dict[str, int]:
    """Subjects that there were, and prompts that a subject had at most. What was asked for may be
    more than the pictures are."""
    named = [table for table in tables.values() if "subject" in table]
    subjects = {str(name) for table in named for name in table["subject"]}
    cases = getattr(chosen, "cases", None) or ()
    of_cases = Counter(str(case.subject) for case in cases)
    prompts = [of_cases[name] for name in subjects]
    prompts += [
        int(table.groupby("subject")["prompt"].nunique().max())
        for table in named
        if "prompt" in table
    ]
    return {
        "subjects": len(subjects) or chosen.subjects,
        "prompts": max(prompts, default=0) or chosen.prompts,
    }


def write_page(
    path: Path, page: Page, command: str, facts: Mapping[str, Any], images: Mapping[str, str]
) -> None:
    """Write a page in one step."""
    with atomic_path(path) as temporary:
        temporary.write_text(page_text(page, command, facts, images))
