"""Which references and prompts a script runs on: PocketBench, or photographs with found masks."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recast_probe.datasets import BENCHMARKS, Case, load_benchmark
from recast_probe.masks import FINDERS, MaskFinder, mask_finder
from recast_probe.pocket.bench import pocket_bench

POCKET = BENCHMARKS[0]


def add_benchmark(parser: argparse.ArgumentParser) -> None:
    """The arguments that choose a benchmark."""
    parser.add_argument("--benchmark", choices=BENCHMARKS, default=POCKET)
    parser.add_argument(
        "--data",
        type=Path,
        help="the benchmark's folder; without it, kontextbench and dreambench are fetched",
    )
    parser.add_argument(
        "--masks",
        choices=(*FINDERS, "none"),
        default=next(iter(FINDERS)),
        help="what finds the subject where the benchmark has no mask; none scores whole images",
    )
    parser.add_argument(
        "--no-mask-oracle", action="store_true", help="leave out the arm that needs a mask"
    )


def takes_everything(chosen: Any, size: str, sizes: Mapping[str, Any] | None) -> bool:
    """Whether all of the benchmark is taken: photographs, unless the script has its own sizes."""
    photographs = chosen.benchmark != POCKET and not chosen.quick
    return photographs and size in ("subjects", "prompts") and size not in (sizes or {})


def finder_of(chosen: Any) -> MaskFinder | None:
    """The mask finder that was asked for; None for PocketBench, which has all masks."""
    return None if chosen.benchmark == POCKET else mask_finder(chosen.masks)


def cases_of(chosen: Any) -> list[Case]:
    """The cases that were asked for; PocketBench in the categories of `--categories`, if any."""
    categories = getattr(chosen, "categories", None)
    if chosen.benchmark == POCKET and categories:
        return list(pocket_bench(chosen.subjects, chosen.prompts, categories, chosen.seed))
    return load_benchmark(
        chosen.benchmark,
        chosen.data,
        subjects=chosen.subjects,
        prompts=chosen.prompts,
        seed=chosen.seed,
        masks=finder_of(chosen),
    )


def benchmark_settings(chosen: Any) -> dict[str, str]:
    """What decides the outcome of runs on photographs; PocketBench has no such choices."""
    if chosen.benchmark == POCKET:
        return {}
    return {"benchmark": chosen.benchmark, "masks": chosen.masks}
