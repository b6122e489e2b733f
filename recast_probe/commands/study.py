"""`recast-probe study`: whole studies by name, and the same from a checkout's `analyses/`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from recast_probe.commands import output
from recast_probe.recipes import STUDIES, recipe_of

app = typer.Typer(add_completion=False, rich_markup_mode=None)
SCRIPT = "python -m analyses."
COMMAND = "recast-probe study "


@app.command(
    "study",
    # what follows the name belongs to the study
    context_settings={"allow_extra_args": True, "allow_interspersed_args": False},
    options_metavar="",
)
def study(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            help="Which study; without one they are listed.",
            show_default=False,
            autocompletion=lambda: list(STUDIES),
        ),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the studies.")] = False,
) -> None:
    """Run a whole study by its name: table_1, paths, or compare for arms of your own.

    Each has options of its own: `recast-probe study NAME --help`. It writes tables, figures, a page
    (page.md) and summary.json to --out, and goes on where it was stopped.
    """
    if name is None or listed:
        output.emit(STUDIES, output.names_and_values(STUDIES))
        return
    from recast_probe.files.atomic import without_nan

    # with --json, standard output holds one object and nothing else
    quiet = contextlib.redirect_stdout(sys.stderr) if output.prints_json() else None
    with quiet or contextlib.nullcontext():
        chosen, found = run_study(name, context.args, program=COMMAND)
    if quiet is not None:
        output.emit({"study": name, "out": str(chosen.out), **without_nan(found)}, ())
    output.note(f"Results: {chosen.out}")


def run_study(
    name: str, arguments: list[str] | None = None, *, program: str = COMMAND
) -> tuple[Any, dict[str, Any]]:
    """Run a study with these options.

    Args:
        arguments: None for those of the program.
        program: how it is called, before the study's name; the page says so.

    Returns:
        The options, and what was found.

    Raises:
        InputError: an unknown study, or options that cannot be used; where that can be told without
            a model, none has been loaded.
    """
    recipe, description = recipe_of(name)
    from recast_probe.commands.common import check_model, open_probe
    from recast_probe.errors import InputError
    from recast_probe.recipes.arguments import parse
    from recast_probe.recipes.benchmark import bench, check_needs
    from recast_probe.recipes.comparing import check_own_arms, chosen_arms, further_metrics
    from recast_probe.recipes.plugins import run_plugin

    chosen = parse(name, recipe, arguments, program=program, description=description)
    if chosen.plugin and getattr(chosen, "engine", "local") != "local":
        raise InputError(
            "--plugin files are run by this program and not by workers of Ray; leave out --engine, "
            "and share the cases out with --shard."
        )
    for each in chosen.plugin:
        run_plugin(each)
    chosen_arms(chosen)
    recipe.prepare(chosen)
    output.check_output(chosen.out, (), overwrite=True)
    adapter, encoder = (getattr(chosen, each, None) for each in ("ip_adapter", "image_encoder"))
    model = chosen.model, chosen.dtype, chosen.device, adapter, encoder
    check_model(*model)
    further_metrics(chosen)
    if recipe.benchmark:
        check_needs(bench(chosen), recipe.needs, name)
    check_own_arms(chosen)
    return chosen, recipe.run(chosen, open_probe(*model))


def script(name: str) -> Callable[..., dict[str, Any]]:
    """The main function of `python -m analyses.NAME`."""
    return partial(_found, name)


def _found(name: str, arguments: list[str] | None = None) -> dict[str, Any]:
    return run_study(name, arguments, program=SCRIPT)[1]
