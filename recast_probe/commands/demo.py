"""`recast-probe demo`: the main job on the bundled model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recast_probe.commands.common import Json, Model, Seed, Steps, emit, note, open_probe
from recast_probe.commands.values import WHOLE, whole


def demo(
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("out/demo"),
    references: Annotated[
        int,
        typer.Option(
            help="How many of the 24 shipped samples.", parser=whole("--references"), metavar=WHOLE
        ),
    ] = 4,
    prompts: Annotated[
        int,
        typer.Option(
            help="Prompts for each, 1 to 4; in place and moved in turns.",
            parser=whole("--prompts"),
            metavar=WHOLE,
        ),
    ] = 4,
    steps: Steps = 28,
    seed: Seed = 0,
    model: Model = "pocket",
    as_json: Json = False,
) -> None:
    """Profile, diagnose and prune on shipped references; write summary, figures and report."""
    from recast_probe.commands.common import output_folder
    from recast_probe.demo import DemoSettings, run_demo
    from recast_probe.files.envelope import without_seal

    settings = DemoSettings(references=references, prompts=prompts, steps=steps, seed=seed)
    probe = open_probe(model, "auto", "cpu")
    folder = output_folder(out)
    summary = run_demo(probe, folder, settings)
    emit(summary if as_json else without_seal(summary | {"files": {}}), as_json)
    note(f"Report: {folder / 'report.html'}")
