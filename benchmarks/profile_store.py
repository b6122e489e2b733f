"""Many profiles in one store against as many files: `python -m benchmarks.profile_store`.

A few profiles of Pocket Kontext are recorded. All others are made of them: every score is
multiplied by noise of its own, and every head's scores are scaled back to their mass. They are
written by several processes into one zarr store, and into one netCDF file each. Then processes of
their own survey the store, and the files in a loop, and tell time and peak memory, and how long a
second reading takes alone. The headline numbers of both are compared.
"""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import recast_probe as rp
from benchmarks.command import add_model, finish, open_probe, parser
from recast_probe._utils.ending import run_program
from recast_probe._utils.memory import peak_memory
from recast_probe.diagnostics.survey import Survey, survey
from recast_probe.pocket.bench import pocket_bench
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.profiles.profile_store import ProfileStore

FILES, STORE, PART = "files, in a loop", "store", "store, one block"
NOISE = 0.3  # standard deviation of the logarithm


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Record, write, and survey both."""
    found = parser(__doc__, repeats=None, device="cpu")
    add_model(found)
    found.add_argument("--profiles", type=int, default=1000)
    found.add_argument("--recorded", type=int, default=4, help="of them made by the model")
    found.add_argument("--workers", type=int, default=2, help="processes that write")
    found.add_argument("--folder", type=Path, help="where all is written; a temporary one else")
    found.add_argument("--survey", choices=(FILES, STORE, PART), help="do this alone, and tell it")
    options = found.parse_args(arguments)
    if options.survey:
        return surveyed(options)
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        record(folder, options)
        started = time.perf_counter()
        in_processes(write_store, folder, options)
        into_store = time.perf_counter() - started
        started = time.perf_counter()
        in_processes(write_files, folder, options)
        into_files = time.perf_counter() - started
        rows = {name: ask(name, folder) for name in (FILES, STORE, PART)}
        sizes = {
            f"{name}_bytes": sum(path.stat().st_size for path in there if path.is_file())
            for name, there in (
                ("files", files(folder)),
                ("store", (folder / "store").rglob("*")),
            )
        }
    values = {name: row.pop("values") for name, row in rows.items()}
    for row in rows.values():
        row["ratio"] = row["median_seconds"] / rows[FILES]["median_seconds"]
        row["speed_up"] = 1 / row["ratio"]
    facts = {
        "profiles": options.profiles,
        "recorded": options.recorded,
        "write_store_seconds": into_store,
        "write_files_seconds": into_files,
        **sizes,
        "same_values": values[FILES] == values[STORE],
        "arms": rows,
    }
    return finish(options, facts, FILES)


def record(folder: Path, options: Any) -> None:
    """A few profiles of whole runs."""
    probe = open_probe(options)
    for number, case in enumerate(pocket_bench(options.recorded, 1, seed=options.seed)):
        profile = probe.profile(
            case.reference, case.prompt, options.steps, case.seed, progress=False
        )
        profile.save(folder / f"recorded-{number}.nc")


def names(count: int) -> list[str]:
    """Of all profiles."""
    return [f"case {number:05d}" for number in range(count)]


def made(folder: Path, numbers: Sequence[int], seed: int) -> Iterator[AttentionProfile]:
    """Profiles with noise on every score, each head's scores with the mass that they had."""
    sources = [AttentionProfile.load(path) for path in sorted(folder.glob("recorded-*.nc"))]
    for number in numbers:
        source = sources[number % len(sources)].dataset
        random = np.random.default_rng((seed, number))
        score = source.score * np.exp(NOISE * random.standard_normal(source.score.shape))
        score = score * (source.score.sum("token") / score.sum("token"))
        yield AttentionProfile(source.assign(score=score.astype(np.float32)))


def write_store(folder: Path, numbers: Sequence[int], count: int, seed: int) -> None:
    """Write a part of the profiles into the one store."""
    store = ProfileStore(folder / "store", names(count))
    for number, profile in zip(numbers, made(folder, numbers, seed), strict=True):
        store.save(store.names[number], profile)


def write_files(folder: Path, numbers: Sequence[int], count: int, seed: int) -> None:
    """Write a part of the profiles into files of their own."""
    for number, profile in zip(numbers, made(folder, numbers, seed), strict=True):
        profile.save(folder / f"{names(count)[number]}.nc")


def files(folder: Path) -> list[Path]:
    """Those that `write_files` wrote."""
    return sorted(folder.glob("case *.nc"))


def in_processes(work: Any, folder: Path, options: Any) -> None:
    """Every process writes each of its profiles; a failure ends the benchmark."""
    count, workers = options.profiles, options.workers
    context = multiprocessing.get_context("spawn")
    running = [
        context.Process(
            target=work, args=(folder, range(first, count, workers), count, options.seed)
        )
        for first in range(workers)
    ]
    for each in running:
        each.start()
    for each in running:
        each.join()
    if any(each.exitcode for each in running):
        raise SystemExit("A process that writes profiles failed.")


def ask(name: str, folder: Path) -> dict[str, Any]:
    """What one survey takes in a process of its own, which holds nothing else."""
    command = [sys.executable, "-m", "benchmarks.profile_store", "--survey", name]
    done = subprocess.run([*command, "--folder", folder], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def surveyed(options: Any) -> dict[str, Any]:
    """Survey once, and print time, peak memory and headline values as JSON."""
    folder = options.folder
    with peak_memory("cpu") as peak:
        started = time.perf_counter()
        found = _survey(options.survey, folder)
        taken = time.perf_counter() - started
        read = reading_time(options.survey, folder)
    row = {
        "median_seconds": taken,
        "interquartile_seconds": 0.0,
        "reading_seconds": read,
        "peak_memory_bytes": peak.total,
        "extra_memory_bytes": peak.extra,
        "values": found.summary(),
    }
    print(json.dumps(row))
    return row


def _survey(name: str, folder: Path) -> Survey:
    return survey(_profiles(name, folder))


def _profiles(name: str, folder: Path) -> Iterator[AttentionProfile]:
    if name == FILES:
        return (AttentionProfile.load(path) for path in files(folder))
    store = rp.ProfileStore(folder / "store")
    return iter(store) if name == STORE else store.profiles(blocks=0)


def reading_time(name: str, folder: Path) -> float:
    """Of the same profiles, without any statistics."""
    started = time.perf_counter()
    for _ in _profiles(name, folder):
        pass
    return time.perf_counter() - started


if __name__ == "__main__":
    run_program(main, "profile_store")
