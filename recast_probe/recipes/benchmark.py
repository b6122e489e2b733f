"""Which references and prompts a study runs on: PocketBench, or photographs with found masks."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recast_probe.datasets import BENCHMARKS, Case, file_label, load_benchmark, named_benchmark
from recast_probe.errors import InputError
from recast_probe.masks import FINDERS, MaskFinder, mask_finder
from recast_probe.pocket.bench import pocket_bench

POCKET = BENCHMARKS[0]
NEEDS = {
    "reference_mask": "subject's mask in the reference",
    "target": "true answer (target)",
    "target_mask": "subject's mask in the true answer (target_mask)",
}


def add_benchmark(parser: argparse.ArgumentParser) -> None:
    """The options that choose a benchmark, or pictures of your own."""
    parser.add_argument(
        "--images",
        help="your references and prompts: a CSV or JSONL file with the columns image and prompt, "
        "or the folder that holds one; or a benchmark as NAME or NAME=FOLDER",
    )
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


def take_images(chosen: Any, parser: argparse.ArgumentParser) -> None:
    """Put what `--images` names in the place of `--benchmark` and `--data`."""
    if chosen.images is not None:
        if chosen.benchmark != POCKET or chosen.data is not None:
            parser.error("--images says what --benchmark and --data say; give either")
        chosen.benchmark, data = named_benchmark(chosen.images)
        chosen.data = None if data is None else Path(data)
    del chosen.images


def takes_everything(chosen: Any, size: str, sizes: Mapping[str, Any] | None) -> bool:
    """Whether all of the benchmark is taken: photographs, unless the study has its own sizes."""
    photographs = benchmark_of(chosen) != POCKET and not chosen.quick
    return photographs and size in ("subjects", "prompts") and size not in (sizes or {})


def benchmark_of(chosen: Any) -> str:
    """Its name; PocketBench for studies that take no other."""
    return getattr(chosen, "benchmark", POCKET)


def finder_of(chosen: Any) -> MaskFinder | None:
    """The mask finder that was asked for; None for PocketBench, which has all masks."""
    return None if benchmark_of(chosen) == POCKET else mask_finder(chosen.masks)


def bench(chosen: Any) -> list[Case]:
    """The cases that were asked for, loaded once."""
    if getattr(chosen, "cases", None) is None:
        chosen.cases = _loaded(chosen)
    return chosen.cases


def check_needs(cases: Sequence[Case], needs: Sequence[str], name: str) -> None:
    """Check that every case has what a study needs of it.

    Args:
        needs: attributes of a `Case`.

    Raises:
        InputError: one has not; says how many, and the first.
    """
    for need in needs:
        lacking = [case for case in cases if getattr(case, need) is None]
        if lacking:
            raise InputError(
                f"The study {name} needs the {NEEDS[need]} of every case, and {len(lacking)} of "
                f"{len(cases)} have none, the first is {lacking[0].subject!r} with the prompt "
                f"{lacking[0].prompt[:60]!r}. Give them, or take another study, such as compare."
            )


def _loaded(chosen: Any) -> list[Case]:
    """PocketBench comes in the categories of `--categories`, if there are any."""
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


def rows_digest(cases: Sequence[Case]) -> str | None:
    """12 hexadecimal digits of what cases from files say and show; None for PocketBench.

    Where a result rests on other cases than the one that it is named after, this goes beside its
    name, so that it is made anew when one of them changes.

    Raises:
        InputError: a file that cannot be read.
    """
    files = file_label(cases)
    if not files:
        return None
    said = [[case.subject, case.prompt, case.category] for case in cases]
    return hashlib.sha256(json.dumps([said, files]).encode()).hexdigest()[:12]


def benchmark_settings(chosen: Any) -> dict[str, str]:
    """What decides the outcome of runs on photographs; PocketBench has no such choices."""
    if benchmark_of(chosen) == POCKET:
        return {}
    return {"benchmark": chosen.benchmark, "masks": chosen.masks}
