"""`recast-probe claims`: each claim of the paper, judged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from recast_probe.commands.common import Json, emit, transformer_config
from recast_probe.errors import InputError


def claims(
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder or repository whose transformer's config is read; FLUX.1 Kontext dev's "
            "by default."
        ),
    ] = None,
    measured: Annotated[
        list[Path] | None,
        typer.Option(help="summary.json of the demo or of an analysis; repeat for several."),
    ] = None,
    markdown: Annotated[
        bool, typer.Option(help="Print the table of the findings alone, in Markdown.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print each claim of the paper: its number, what arithmetic allows, what was measured."""
    from recast_probe.cost_model.work import step_work
    from recast_probe.paper_claims import (
        GENERATION,
        REFERENCE,
        TEXT,
        check_claims,
        markdown_table,
    )
    from recast_probe.paper_claims.measurements import collect

    config = transformer_config(model or "flux-kontext")
    numbers = collect(measured or [])
    found = check_claims(config, numbers)
    if markdown and as_json:
        raise InputError("Choose one of --markdown and --json.")
    if markdown:
        print(markdown_table(found, numbers.get("model")))
        return
    steps = {
        str(TEXT + GENERATION + reference): step_work(config, TEXT, GENERATION, reference).total
        for reference in (REFERENCE, 600, 0)
    }
    facts: dict[str, Any] = {
        "parameters": config.parameters,
        "flop_per_step": steps,
        "measured_on": numbers.get("model"),
    }
    if as_json:
        emit(facts | {"claims": [each.to_dict() for each in found]}, as_json)
        return
    print(f"{config.parameters:,} parameters")
    for tokens, flop in steps.items():
        print(f"{flop / 1e12:.2f} TFLOP a step at {int(tokens):,} tokens")
    if "model" in numbers:
        print(f"Measured on {numbers['model']}, not on the paper's 12 B model")
    for each in found:
        print(f"\n{each.verdict.upper()}: {each.claim}")
        print(f"  paper     {each.paper}")
        for name in ("allowed", "measured", "test", "rests_on"):
            if getattr(each, name) != "-":
                print(f"  {name.replace('_', ' '):9} {getattr(each, name)}")
