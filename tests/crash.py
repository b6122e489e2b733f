"""Studies killed, stopped and run twice at once, at random moments: `python -m tests.crash`.

A cheap study is broken off, run again, and compared bit for bit with one that was left alone.
Prints one row a kind of trial and exits with 1 if anything was lost, doubled or left over.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from recast_probe._utils.ending import STOPS, run_program, stoppable_while_importing
from recast_probe.studies import Outcome, Store, Unit, markdown, run_study, save_table

UNITS = [Unit({"subject": f"s{number}", "prompt": "p"}, number) for number in range(12)]
ARMS = ("a", "b")
RUNS = len(UNITS) * len(ARMS)
SECONDS_A_RUN = 0.004
KINDS = {
    "kill -9": signal.SIGKILL,
    "SIGTERM": signal.SIGTERM,
    "SIGHUP": signal.SIGHUP,
    "Ctrl-C": signal.SIGINT,
}


@dataclass
class Row:
    """Counts of one kind of trial.

    Attributes:
        broken: processes that the signal ended, the others were through before it.
        same: trials whose table is the unbroken one's, byte for byte.
        lost: finished runs that were made again.
        stray: temporary files and locks that the last process left.
        wrong_exit: processes that ended with another code than theirs.
        doubled: runs made by two processes at once.
    """

    kind: str
    trials: int = 0
    broken: int = 0
    same: int = 0
    lost: int = 0
    doubled: int = 0
    stray: int = 0
    wrong_exit: int = 0

    @property
    def good(self) -> bool:
        """Nothing lost, doubled, left over or ended wrongly."""
        bad = self.lost + self.doubled + self.stray + self.wrong_exit
        return self.same == self.trials and not bad


@dataclass
class Trial:
    """One folder with its study, and a log of the runs that were begun and finished in it."""

    folder: Path
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.log = self.folder / "log"
        self.log.touch()

    def study(self) -> None:
        """Run what is missing, and write the table."""
        with self.log.open("ab", buffering=0) as log:

            def perform(unit: Unit, missing: Sequence[str]) -> Iterator[Outcome]:
                for arm in missing:
                    time.sleep(SECONDS_A_RUN)
                    rng = np.random.default_rng([unit.payload, ord(arm)])
                    image = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
                    log.write(f"{unit.payload}{arm}\n".encode())
                    values = {"identity": float(rng.random()), "mean": float(np.mean(image))}
                    files = {".png": image.save, ".txt": lambda path: path.write_text("x" * 20000)}
                    yield Outcome(arm, values, files, {"unit": unit.payload})

            store = Store(self.folder / "runs", {"model": "none"})
            table = run_study(UNITS, ARMS, perform, store, progress=False)
        save_table(table, self.folder / "table", {"model": "none"})

    def start(self) -> int:
        """The study in a process of its own."""
        # as a program does it; no signal may come before
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        process = os.fork()
        if process:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            return process
        code = 1
        try:
            stoppable_while_importing()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            run_program(self.study, "study")
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            os._exit(code)

    def wait(self, moment: float) -> None:
        """Until this share of the runs is made, and then for a part of the next one's time."""
        whole, part = divmod(moment * RUNS, 1)
        deadline = time.monotonic() + 60
        while self.performed() < whole and time.monotonic() < deadline:
            time.sleep(0.001)
        # a run and its files take about twice what it sleeps
        time.sleep(2 * part * SECONDS_A_RUN)

    def performed(self) -> int:
        """Runs that were made so far, in all processes."""
        return len(self.log.read_text().split())

    def finished(self) -> int:
        """Runs with a record."""
        return len(list((self.folder / "runs").glob("s[0-9]*.json")))

    def stray(self) -> int:
        """What is neither a result nor a record."""
        names = [path.name for path in self.folder.rglob("*")]
        return sum(name.startswith(".") or name.endswith(".lock") for name in names)

    def table(self) -> bytes:
        """The table as CSV."""
        return (self.folder / "table.csv").read_bytes()


def stopped(kind: str, folder: Path, unbroken: bytes, moments: list[float]) -> Row:
    """Studies that get a signal at these moments, as a share of all runs."""
    row, number = Row(kind), KINDS[kind]
    wanted = -9 if number == signal.SIGKILL else 128 + number
    for index, moment in enumerate(moments):
        trial = Trial(folder / f"{index}")
        process = trial.start()
        trial.wait(moment)
        os.kill(process, number)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        finished, before = trial.finished(), trial.performed()
        trial.study()
        row.trials += 1
        row.broken += code != 0
        row.wrong_exit += code not in (0, wanted)
        row.lost += trial.performed() - before - (RUNS - finished)
        row.same += trial.table() == unbroken
        row.stray += trial.stray()
    return row


def together(folder: Path, unbroken: bytes, moments: list[float | None]) -> Row:
    """Two processes on one store; at these moments one of them is killed, None for not at all."""
    row = Row("two at once" if moments[0] is None else "two at once, one killed")
    for index, moment in enumerate(moments):
        trial = Trial(folder / f"{index}")
        first, second = trial.start(), trial.start()
        if moment is not None:
            trial.wait(moment)
            os.kill(first, signal.SIGKILL)
        codes = [os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]) for each in (first, second)]
        row.trials += 1
        row.broken += codes[0] == -9
        row.wrong_exit += (codes[0] != 0 and moment is None) + (codes[1] != 0)
        # the run at which a process was killed is made again
        row.doubled += max(0, trial.performed() - RUNS - (codes[0] == -9))
        tables = [trial.table()]
        trial.study()
        row.same += tables == [unbroken] == [trial.table()]
        row.stray += trial.stray()
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all trials and print their table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=100, help="trials of each kind")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    rng = np.random.default_rng(chosen.seed)

    def moments() -> list[float]:
        return [float(each) for each in rng.uniform(0, 1, chosen.moments)]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = Trial(folder / "whole")
        whole.study()
        rows = []
        for number, kind in enumerate(KINDS):
            (folder / f"{number}").mkdir()
            rows.append(stopped(kind, folder / f"{number}", whole.table(), moments()))
        for name, when in (("none", [None] * chosen.moments), ("one", moments())):
            (folder / name).mkdir()
            rows.append(together(folder / name, whole.table(), list(when)))
    print(markdown([asdict(row) for row in rows]))
    if not all(row.good for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
