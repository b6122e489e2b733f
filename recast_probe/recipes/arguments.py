"""The options of a study, and the command that makes the same again."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from recast_probe.recipes.benchmark import add_benchmark, take_images, takes_everything
from recast_probe.recipes.recipe import Recipe
from recast_probe.studies.engine.options import ENGINE_OPTIONS, add_engine_options

# options that say where results go or how they are made, not what is measured
PLACES = ("out", "markdown", "measured", "device", *ENGINE_OPTIONS)
SIZES = {"subjects": (100, 3), "prompts": (3, 2), "steps": (28, 4)}


def parse(
    name: str,
    recipe: Recipe,
    arguments: list[str] | None = None,
    *,
    program: str = "recast-probe study ",
    description: str = "",
) -> Any:
    """The options of a study, read.

    Args:
        arguments: None for those of the program.
        program: how the study is called, before its name.
    """
    sizes = {**SIZES, **recipe.sizes}

    def usual(size: str) -> str:
        everything = size != "steps" and size not in recipe.sizes
        of_pocket = ", of your own all" if everything and recipe.benchmark else ""
        return f"by default {sizes[size][0]}{of_pocket}; --quick: {sizes[size][1]}"

    parser = argparse.ArgumentParser(
        prog=f"{program}{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", default="pocket", help="folder, repository, pocket, or tiny:FAMILY"
    )
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--subjects", type=int, help=f"references at most; {usual('subjects')}")
    parser.add_argument("--prompts", type=int, help=f"prompts of each; {usual('prompts')}")
    if recipe.metrics:
        parser.add_argument("--metrics", default="", help="further ones, as dinov2,clip-i,kid")
    if recipe.arms:
        parser.add_argument(
            "--arm",
            nargs="+",
            action="extend",
            default=[],
            help="of your own, as prune:rank=cosine,budget=25%%; repeat for several",
        )
    if recipe.benchmark:
        add_benchmark(parser)
    parser.add_argument(
        "--plugin",
        nargs="+",
        action="extend",
        default=[],
        type=Path,
        help="Python files to run first, which may register metrics and pipelines of your own",
    )
    parser.add_argument("--steps", type=int, help=f"denoising steps; {usual('steps')}")
    parser.add_argument("--quick", action="store_true", help="few subjects and steps, for a trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out") / name)
    parser.add_argument("--markdown", type=Path, help="write the page on the results here, too")
    parser.add_argument("--measured", type=Path, help="write what `recast-probe claims` reads")
    if recipe.engines:
        add_engine_options(parser)
    for name_or_flag, settings in recipe.options.items():
        parser.add_argument(name_or_flag, **settings)
    chosen = parser.parse_args(arguments)
    for each, least in {**dict.fromkeys(SIZES, 1), "seed": 0}.items():
        value = getattr(chosen, each)
        if value is not None and value < least:
            parser.error(f"--{each} is {value}; it is at least {least}")
    if recipe.benchmark:
        take_images(chosen, parser)
    for each, (whole, quick) in sizes.items():
        everything = takes_everything(chosen, each, recipe.sizes)
        if getattr(chosen, each) is None and not everything:
            setattr(chosen, each, quick if chosen.quick else whole)
    chosen.command = command_of(f"{program}{name}", chosen, parser)
    return chosen


def command_of(called: str, chosen: Any, parser: argparse.ArgumentParser) -> str:
    """The command that makes the same again: all sizes, and what is not as by default."""
    parts = [called]
    for each, value in vars(chosen).items():
        usual = parser.get_default(each)
        if each in PLACES or value is None or (each not in (*SIZES, "seed") and value == usual):
            continue
        values = value if isinstance(value, list | tuple) else [] if value is True else [value]
        parts.append(shlex.join([f"--{each.replace('_', '-')}", *map(str, values)]))
    return " ".join(parts)
