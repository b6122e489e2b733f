"""The options of a command line that say where a study runs, for `run_study`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from recast_probe.errors import InputError
from recast_probe.studies.engine.run import ENGINES
from recast_probe.studies.engine.shard import parse_shard
from recast_probe.studies.store import Store

ENGINE_OPTIONS = ("engine", "workers", "gpus_per_worker", "address", "shard")
"""Names of the options. None of them changes what is measured."""
Value = TypeVar("Value")


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add --engine, --workers, --gpus-per-worker, --address and --shard.

    Examples:
        >>> parser = argparse.ArgumentParser()
        >>> add_engine_options(parser)
        >>> engine_options(parser.parse_args(["--shard", "3/8"]))["shard"]
        (3, 8)
    """
    group = parser.add_argument_group("where it runs")
    group.add_argument(
        "--engine", choices=ENGINES, default="local", help="ray: on several workers of Ray"
    )
    group.add_argument(
        "--workers", type=int, help="of Ray; one a GPU, or one without GPUs, if not given"
    )
    group.add_argument(
        "--gpus-per-worker", type=float, help="of Ray; 1 for a model on CUDA, if not given"
    )
    group.add_argument("--address", help="of a Ray cluster that runs, or auto")
    group.add_argument(
        "--shard",
        type=_said(parse_shard),
        metavar="I/N",
        help="run the I-th of N shares of the cases and stop, as a job of a SLURM array does; the "
        "same command without it then makes the table",
    )


def engine_options(chosen: Any) -> dict[str, Any]:
    """What was chosen, as arguments of `run_study`."""
    return {name: getattr(chosen, name) for name in ENGINE_OPTIONS}


def end_of_shard(chosen: Any, store: Store) -> None:
    """After a shard's runs: say what is next and end the program, since a part of the cases has no
    table of its own.

    Raises:
        SystemExit: 0, where --shard was given.
    """
    if chosen.shard is not None:
        number, count = chosen.shard
        print(
            f"Shard {number} of {count} is done; its runs are in {store.folder}. When all are, the "
            "same command without --shard makes the table from them.",
            file=sys.stderr,
        )
        raise SystemExit(0)


def _said(read: Callable[[str], Value]) -> Callable[[str], Value]:
    """So that argparse says what was wrong."""

    def checked(text: str) -> Value:
        try:
            return read(text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked
