"""`recast-probe claims`: each claim of the paper, judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recast_probe.commands.common import transformer_config
from recast_probe.commands.output import emit

if TYPE_CHECKING:
    from recast_probe.paper_claims.verdict import Verdict


def claims(
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder or repository whose transformer's config is read.",
            show_default="FLUX.1 Kontext dev's",
        ),
    ] = None,
    measured: Annotated[
        list[Path] | None,
        typer.Option(
            help="summary.json of the demo or of an analysis; repeat for several. Where two hold a "
            "number, that of more subjects counts."
        ),
    ] = None,
    markdown: Annotated[
        bool, typer.Option(help="Print the table of the findings alone, in Markdown.")
    ] = False,
) -> None:
    """Each claim of the paper: its number, what arithmetic allows, what was measured."""
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
    steps = {
        str(TEXT + GENERATION + reference): step_work(config, TEXT, GENERATION, reference).total
        for reference in (REFERENCE, 600, 0)
    }
    facts: dict[str, Any] = {
        "parameters": config.parameters,
        "flop_per_step": steps,
        "measured_on": numbers.get("model"),
    }
    listed = {"claims": [each.to_dict() for each in found]}
    if markdown:
        emit(facts | listed, [markdown_table(found, numbers.get("model"))])
    else:
        emit(facts | listed, _lines(found, config.parameters, steps, numbers.get("model")))


def _lines(
    found: list[Verdict], parameters: int, steps: dict[str, float], model: str | None
) -> Iterator[str]:
    counts = Counter(each.verdict for each in found)
    yield f"{len(found)} claims: {', '.join(f'{n} {verdict}' for verdict, n in counts.items())}."
    if model is None:
        yield (
            "Nothing was measured: give --measured a summary.json of the demo or of an analysis."
        )
    else:
        yield f"Measured on {model}, not on the paper's 12 B model."
    yield f"{parameters:,} parameters"
    for tokens, flop in steps.items():
        yield f"{flop / 1e12:.2f} TFLOP a step at {int(tokens):,} tokens"
    for each in found:
        yield f"\n{each.verdict.upper()}: {each.claim}"
        yield f"  paper     {each.paper}"
        for name in ("allowed", "measured", "test", "rests_on"):
            if getattr(each, name) != "-":
                yield f"  {name.replace('_', ' '):9} {getattr(each, name)}"
