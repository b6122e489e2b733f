"""Studies on workers of Ray: the same table, whatever happens to a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import ray

from recast_probe import datasets
from recast_probe.errors import InputError, WorkerLostError
from recast_probe.probe import Probe
from recast_probe.studies import Outcome, Store, Unit, run_study
from recast_probe.studies.comparison import Arm, Comparison, units
from recast_probe.studies.engine import ray_engine
from recast_probe.studies.engine.ray_cluster import connected
from recast_probe.testing import tiny
from tests.crash import RUNS
from tests.crash_ray import RayTrial, _alive, stopped

# each starts programs that start workers or a Ray of their own
takes_minutes = pytest.mark.skipif(
    not os.environ.get("RECAST_PROBE_CRASH"), reason="takes minutes; `make crash` runs it"
)
UNITS = [Unit({"subject": f"s{number}"}, number) for number in range(8)]
ARMS = ("a", "b")
ON_RAY = {"engine": "ray", "workers": 2, "progress": False}


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One Ray for all; the address of it."""
    before = signal.getsignal(signal.SIGTERM)
    with connected(ray, None, 2):
        yield ray.get_runtime_context().gcs_address
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) == before


@dataclass(frozen=True)
class Performer:
    """Leaves a line in a log for each run, and a warning at each unit; can die or raise at one.

    Attributes:
        dies: units at which the process is killed.
        dies_once: the same, the first time only.
        raises: by unit, what is raised.
    """

    log: Path
    dies: tuple[int, ...] = ()
    dies_once: tuple[int, ...] = ()
    raises: tuple[tuple[int, Exception], ...] = ()

    def __call__(self, unit, missing):
        number = unit.payload
        mark = self.log.with_name(f"died {number}")
        if number in self.dies or (number in self.dies_once and not mark.exists()):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        for which, error in self.raises:
            if which == number:
                raise error
        warnings.warn(f"look at {number}", UserWarning, stacklevel=1)
        for arm in missing:
            time.sleep(0.05)
            with self.log.open("a") as log:
                log.write(f"{number}{arm}:{os.getpid()}\n")
            yield Outcome(arm, {"value": number / 7, "odd": [number % 2, None], "nothing": None})

    @property
    def runs(self):
        return [line.partition(":")[0] for line in self.log.read_text().split()]

    @property
    def processes(self):
        return {int(line.partition(":")[2]) for line in self.log.read_text().split()}


@pytest.fixture
def whole(tmp_path):
    """The table that one process makes."""
    return run_study(
        UNITS, ARMS, Performer(tmp_path / "whole"), Store(tmp_path / "w", {}), progress=False
    )


def every(numbers):
    return sorted(f"{number}{arm}" for number in numbers for arm in ARMS)


def test_a_worker_that_dies_is_replaced_and_what_cannot_be_made_is_named(
    tmp_path, whole, monkeypatch, capsys
):
    monkeypatch.setattr(ray_engine, "AGAIN", 1)
    performer = Performer(tmp_path / "log", dies=(3,), dies_once=(5,))
    store = Store(tmp_path / "r", {})
    wanted = r"1 of 8 units .*2 workers died: subject=s3 \(Actor"
    with (
        pytest.warns(UserWarning, match="look at 7"),
        pytest.raises(WorkerLostError, match=wanted),
    ):
        run_study(UNITS, ARMS, performer, store, **ON_RAY | {"workers": 1})
    assert sorted(performer.runs) == every(set(range(8)) - {3})
    assert os.getpid() not in performer.processes
    assert not any(map(_alive, performer.processes))
    told = capsys.readouterr()
    assert "died at subject=s5; it is run again, 1 of 1 times" in told.err
    assert told.out == ""
    # the same call goes on, here without the fault and without Ray
    table = run_study(UNITS, ARMS, Performer(tmp_path / "log"), store, progress=False)
    pd.testing.assert_frame_equal(table, whole, check_exact=True)
    assert sorted(performer.runs) == every(range(8))


def test_what_perform_raises_is_raised_here(tmp_path):
    performer = Performer(tmp_path / "log", raises=((1, InputError("The mask 'x' is empty.")),))
    with pytest.raises(InputError, match="The mask 'x' is empty") as found:
        run_study(UNITS[:3], ARMS, performer, Store(tmp_path / "r", {}), **ON_RAY | {"workers": 1})
    assert "test_ray.py" in found.value.__notes__[0], "where it was raised"
    assert performer.runs == ["0a", "0b"]


@takes_minutes
def test_local_processes_and_workers_at_once(tmp_path):
    unbroken, trial = RayTrial(tmp_path / "whole"), RayTrial(tmp_path / "t")
    unbroken.run()
    code = f"import tests.crash_ray as c; c.RayTrial(c.Path({str(trial.folder)!r})).run(4)"
    local = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    trial.run(4, engine="ray", workers=2)
    assert [each.wait(60) for each in local] == [0, 0]
    runs = [line.partition(":")[0] for line in trial.log.read_text().split()]
    assert len(runs) == len(set(runs)) == RUNS
    assert len(trial.workers()) == 4
    assert trial.table() == unbroken.table()
    assert trial.stray() == 0


@takes_minutes
@pytest.mark.parametrize("kind", ["kill -9", "SIGTERM"])
def test_killed_programs(tmp_path, cluster, kind):
    """Two trials of `tests.crash_ray`."""
    unbroken = RayTrial(tmp_path / "whole")
    unbroken.run()
    row = stopped(kind, RayTrial(tmp_path / "t"), unbroken.table(), 0.3, cluster, "local")
    assert row.good, row
    assert row.broken == 1


def test_a_comparison_is_the_same_bit_for_bit(tmp_path):
    cases = datasets.load_benchmark("pocket", subjects=2, prompts=1)
    probe = Probe.tiny("flux-kontext")
    arms = {"full": Arm("full"), "random": Arm("random", 8)}
    tables = []
    for name, settings in (("l", {"progress": False}), ("r", ON_RAY | {"workers": 1})):
        store = Store(tmp_path / name, probe.identity())
        comparison = Comparison(probe, arms, store, steps=2)
        tables.append(run_study(units(cases), list(arms), comparison, store, **settings))
    local, on_ray = (table.drop(columns="seconds") for table in tables)
    pd.testing.assert_frame_equal(local, on_ray, check_exact=True)
    pictures = [
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.png")} for name in "lr"
    ]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == 4


def test_what_cannot_be_sent_is_refused(tmp_path):
    probe = Probe(tiny.build_tiny_pipeline())

    def perform(unit, missing):
        return [Outcome(arm, {"name": probe.name}) for arm in missing]

    with pytest.raises(InputError, match="from_function"):
        run_study(UNITS, ARMS, perform, Store(tmp_path / "r", {}), **ON_RAY)
    lock = threading.Lock()
    with pytest.raises(InputError, match=r"cannot be sent to workers .*lock"):
        run_study(UNITS, ARMS, lambda *_: lock, Store(tmp_path / "r", {}), **ON_RAY)
    with pytest.raises(InputError, match="connected to Ray already"):
        run_study(
            UNITS, ARMS, Performer(tmp_path), Store(tmp_path / "r", {}), **ON_RAY, address="x"
        )
