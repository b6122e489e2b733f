"""`python -m tests.fuzz`: counts by class, the inputs to look at, and exit code 1 where there are
some."""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from tests.fuzz import command_line, data, masks, models, pictures, profiles, stored
from tests.fuzz.harness import BAD, Counts, FuzzClass, run
from tests.fuzz.whole import make_whole_files

CLASSES: tuple[FuzzClass, ...] = tuple(
    each
    for module in (pictures, masks, profiles, stored, data, models, command_line)
    for each in module.CLASSES
)
COLUMNS = ("right", "clear", "accepted", *BAD)


def main(arguments: list[str] | None = None) -> int:
    """Run it; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inputs", type=int, default=10_000, help="of all classes together")
    parser.add_argument("--lanes", type=int, default=2, help="processes side by side")
    parser.add_argument("--only", default="", help="classes whose name holds this")
    parser.add_argument("--input", type=int, help="run this input of --only alone, with its error")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    classes = [each for each in CLASSES if chosen.only in each.name]
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        base = make_whole_files(Path(place))
        if chosen.input is not None:
            return _alone(classes[0], chosen.seed, chosen.input, base, Path(place))
        found = run(classes, shares(classes, chosen.inputs), chosen.seed, base, chosen.lanes)
    _print(found, chosen.seed, time.perf_counter() - began)
    return int(any(counts.bad for counts in found.values()))


def shares(classes: list[FuzzClass], inputs: int) -> dict[str, int]:
    """Inputs of each class, by its name, of so many in all; at least one of each."""
    total = sum(each.share for each in classes)
    return {each.name: max(1, -(-each.share * inputs // total)) for each in classes}


def _alone(each: FuzzClass, seed: int, index: int, base: Path, place: Path) -> int:
    os.environ["XDG_CACHE_HOME"] = str(place / "cache")
    (place / "work").mkdir()
    print(
        each.trial(random.Random(f"{seed}/{each.name}/{index}"), each.prepare(place / "work", base))
    )
    return 0


def _print(found: dict[str, Counts], seed: int, seconds: float) -> None:
    print(f"{'class':32} {'inputs':>7}" + "".join(f" {column:>9}" for column in COLUMNS))
    total = Counts()
    for name, counts in found.items():
        _row(name, counts)
        total.found += counts.found
    _row("all", total)
    print(f"seed {seed}, {seconds:.0f} s")
    for name, counts in found.items():
        for index, outcome in counts.bad[:8]:
            print(f"{name}: {outcome}", file=sys.stderr)
            print(
                f"    python -m tests.fuzz --seed {seed} --only '{name}' --input {index}",
                file=sys.stderr,
            )


def _row(name: str, counts: Counts) -> None:
    numbers = "".join(f" {counts.found[column]:9,}" for column in COLUMNS)
    print(f"{name:32} {sum(counts.found.values()):7,}{numbers}")


if __name__ == "__main__":
    sys.exit(main())
