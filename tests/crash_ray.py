"""Studies on Ray whose workers and programs are killed at random moments: `-m tests.crash_ray`.

The study of `tests.crash` on two workers. Prints one row a kind of trial and exits with 1 if
anything was lost, doubled or left over.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from PIL import Image

from recast_probe._utils.ending import run_program
from recast_probe.studies import Outcome, Store, Unit, markdown, run_study, save_table
from recast_probe.studies.engine.ray_cluster import connected
from tests.crash import ARMS, RUNS, UNITS, Row, Trial

SECONDS_A_RUN = 0.02
ENDED_WITHIN_SECONDS = 30
STOPS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}
EXIT = {"kill -9": -9, "SIGTERM": 143, "Ctrl-C": 130}


@dataclass(frozen=True)
class Performer:
    """Makes a small picture for a run, and writes run and process into a log.

    Attributes:
        together: so many processes have a unit each before any of them begins.
    """

    log: Path
    together: int = 0

    def __call__(self, unit: Unit, missing: Sequence[str]) -> Iterator[Outcome]:
        if self.together:
            self.log.with_name(f"here {os.getpid()}").touch()
            deadline = time.monotonic() + 300
            while len([*self.log.parent.glob("here *")]) < self.together:
                assert time.monotonic() < deadline, "the others did not come"
                time.sleep(0.01)
        for arm in missing:
            time.sleep(SECONDS_A_RUN)
            rng = np.random.default_rng([unit.payload, ord(arm)])
            image = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
            with self.log.open("ab", buffering=0) as log:
                log.write(f"{unit.payload}{arm}:{os.getpid()}\n".encode())
            values = {"identity": float(rng.random()), "mean": float(np.mean(image))}
            yield Outcome(arm, values, {".png": image.save}, {"unit": unit.payload})


class RayTrial(Trial):
    """A trial whose runs are made by workers."""

    def run(self, together: int = 0, **settings: Any) -> None:
        """Run what is missing, and write the table."""
        store = Store(self.folder / "runs", {"model": "none"})
        performer = Performer(self.log.resolve(), together)
        table = run_study(UNITS, ARMS, performer, store, progress=False, **settings)
        save_table(table, self.folder / "table", {"model": "none"})

    def program(self, address: str | None) -> subprocess.Popen[str]:
        """The study on two workers, as a program; on a Ray of its own without an address."""
        more = ["--address", address] if address else []
        return subprocess.Popen(
            [sys.executable, "-m", "tests.crash_ray", "--study", str(self.folder), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait(self, moment: float) -> None:
        """Until this share of the runs is made, and then for a part of the next one's time."""
        whole, part = divmod(moment * RUNS, 1)
        deadline = time.monotonic() + 120
        while self.performed() < max(1, whole) and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(2 * part * SECONDS_A_RUN)

    def workers(self) -> set[int]:
        """Processes that made runs."""
        return {int(line.partition(":")[2]) for line in self.log.read_text().split()}

    def ended(self) -> bool:
        """Whether all workers end by themselves."""
        deadline = time.monotonic() + ENDED_WITHIN_SECONDS
        while left := {each for each in self.workers() if _alive(each)}:
            if time.monotonic() > deadline:
                print(f"workers that did not end: {left}", file=sys.stderr)
                return False
            time.sleep(0.05)
        return True


def stopped(
    kind: str, trial: RayTrial, unbroken: bytes, moment: float, address: str | None, engine: str
) -> Row:
    """The program gets a signal; the study is finished on this engine."""
    row = Row(f"program, {kind}")
    with trial.program(address) as process:
        trial.wait(moment)
        process.send_signal(STOPS[kind])
        said, _ = process.communicate(timeout=120)
    row.trials, row.broken = 1, int(process.returncode != 0)
    row.wrong_exit = int(process.returncode not in (0, EXIT[kind])) + ("Traceback" in said)
    if row.wrong_exit:
        print(process.returncode, said, file=sys.stderr)
    row.stray += not trial.ended()
    finished, before = trial.finished(), trial.performed()
    trial.run(**({"engine": "ray", "workers": 2} if engine == "ray" else {}))
    row.lost = trial.performed() - before - (RUNS - finished)
    row.same, row.stray = int(trial.table() == unbroken), row.stray + trial.stray()
    return row


def worker_killed(trial: RayTrial, unbroken: bytes, moment: float) -> Row:
    """A worker is killed while this process runs the study."""
    row, killed = Row("worker, kill -9"), []

    def kill() -> None:
        trial.wait(moment)
        last = trial.log.read_text().split()[-1]
        with suppress(ProcessLookupError):
            os.kill(int(last.partition(":")[2]), signal.SIGKILL)
            killed.append(last)

    thread = threading.Thread(target=kill)
    thread.start()
    trial.run(engine="ray", workers=2)
    thread.join()
    row.trials, row.broken = 1, len(killed)
    # the run at which it was killed is made again
    row.doubled = max(0, trial.performed() - RUNS - len(killed))
    table = trial.table()
    trial.run()
    row.same, row.stray = int(table == trial.table() == unbroken), trial.stray()
    return row


def total(rows: Sequence[Row]) -> Row:
    """Rows of one kind as one."""
    counts = [{k: v for k, v in asdict(row).items() if k != "kind"} for row in rows]
    return Row(rows[0].kind, **{name: sum(each[name] for each in counts) for name in counts[0]})


def _alive(process: int) -> bool:
    try:
        # one that has ended and that its parent has not yet asked for is gone as well
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all trials and print their table; or one study, which is to be stopped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=30, help="trials of each kind")
    parser.add_argument("--own", type=int, default=3, help="of them, on a Ray that they start")
    parser.add_argument("--kinds", nargs="+", default=["worker", *STOPS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--study", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.study is not None:
        return RayTrial(chosen.study).run(engine="ray", workers=2, address=chosen.address)
    rng = np.random.default_rng(chosen.seed)
    with tempfile.TemporaryDirectory() as name, connected(ray, None, 2):
        address = ray.get_runtime_context().gcs_address
        whole = RayTrial(Path(name) / "whole")
        whole.run()
        rows = []
        for kind in chosen.kinds:
            found = []
            for number, moment in enumerate(rng.uniform(0, 1, chosen.moments)):
                trial = RayTrial(Path(name) / f"{kind} {number}")
                if kind == "worker":
                    found.append(worker_killed(trial, whole.table(), float(moment)))
                else:
                    at = None if number < chosen.own else address
                    engine = ("ray", "local")[number % 2]
                    found.append(stopped(kind, trial, whole.table(), float(moment), at, engine))
                print(f"{kind} {number + 1}: {found[-1]}", file=sys.stderr, flush=True)
            rows.append(total(found))
    print(markdown([asdict(row) for row in rows]))
    if not all(row.good for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    run_program(main, "study")
