"""Two at work on one store do nothing twice, and what a killed one claimed is free again."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time

import pandas as pd
import pytest

import recast_probe as rp
from recast_probe.experiments.attribution import attribution
from recast_probe.experiments.causal_map import causal_map
from recast_probe.files import locks
from recast_probe.probe import Probe
from recast_probe.studies import Outcome, Store, Unit, run_study, store
from recast_probe.studies.engine import run as engine

UNITS = [Unit({"subject": f"s{number}"}, number) for number in range(8)]
ARMS = ("a", "b")
HOLDER = """
import sys, time
from recast_probe.studies.store import Store
with Store(sys.argv[1], {}).claim({"subject": "s0"}):
    print("held", flush=True)
    time.sleep(60)
"""


class Performer:
    """Counts its runs; each takes a moment, and the first waits until all have begun one."""

    def __init__(self, begun: threading.Barrier | None = None) -> None:
        self.runs: list[tuple[int, str]] = []
        self.begun = begun

    def __call__(self, unit, missing):
        for arm in missing:
            if self.begun and not self.runs:
                self.begun.wait(60)
            time.sleep(0.002)
            self.runs.append((unit.payload, arm))
            yield Outcome(arm, {"value": unit.payload + (arm == "b") / 2})


def stray(folder):
    return [path.name for path in folder.iterdir() if path.suffix not in (".json", ".txt")]


def test_two_at_once_share_the_work(tmp_path):
    whole = run_study(UNITS, ARMS, Performer(), Store(tmp_path / "whole", {}), progress=False)
    begun, tables = threading.Barrier(3), []
    performers = [Performer(begun) for _ in range(3)]

    def work(performer):
        # a claim keeps threads apart as it does processes
        opened = Store(tmp_path / "shared", {})
        tables.append(run_study(UNITS, ARMS, performer, opened, progress=False))

    threads = [threading.Thread(target=work, args=[each]) for each in performers]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    done = [run for performer in performers for run in performer.runs]
    assert sorted(done) == sorted((unit.payload, arm) for unit in UNITS for arm in ARMS)
    assert all(performer.runs for performer in performers)
    assert len(tables) == 3
    for table in tables:
        pd.testing.assert_frame_equal(table, whole)
    assert stray(tmp_path / "shared") == []


def test_a_killed_process_lets_go(tmp_path, capsys):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        opened = Store(tmp_path, {})
        assert len(stray(tmp_path)) == 1, "the claim of a living process stays"
        with opened.claim({"subject": "s0"}) as ours:
            assert not ours
        performer, tables = Performer(), []
        thread = threading.Thread(
            target=lambda: tables.append(run_study(UNITS, ARMS, performer, opened, progress=False))
        )
        thread.start()
        deadline = time.monotonic() + 30
        while len(performer.runs) < 14:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(2 * engine.POLL_SECONDS)
        assert (0, "a") not in performer.runs
        holder.kill()
        thread.join(30)
    assert performer.runs[-2:] == [(0, "a"), (0, "b")]
    assert tables[0]["value"].tolist() == [
        unit.payload + half for unit in UNITS for half in (0, 0.5)
    ]
    assert str(tmp_path) in capsys.readouterr().err
    assert stray(tmp_path) == []


def test_what_a_killed_process_claimed_is_swept(tmp_path):
    Store(tmp_path, {})
    (tmp_path / "s0-0123456789.lock").touch()
    (tmp_path / "mine.lock").touch()
    Store(tmp_path, {})
    assert stray(tmp_path) == ["mine.lock"]


def test_an_interrupted_study_claims_nothing_afterwards(tmp_path):
    def interrupted(unit, missing):
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        run_study(UNITS, ARMS, interrupted, Store(tmp_path, {}), progress=False)
    assert stray(tmp_path) == []
    performer = Performer()
    run_study(UNITS, ARMS, performer, Store(tmp_path, {}), progress=False)
    assert len(performer.runs) == 16


def test_without_locks_the_work_is_done_all_the_same(tmp_path, no_locks):
    with pytest.warns(UserWarning, match="without locks"):
        table = run_study(UNITS, ARMS, Performer(), Store(tmp_path, {}), progress=False)
    assert len(table) == 16


def test_a_finished_study_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    whole = run_study(UNITS, ARMS, Performer(), Store(tmp_path, {}), progress=False)

    def read_only(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    for module, name in ((store, "write_json"), (locks, "FileLock"), (store, "atomic_path")):
        monkeypatch.setattr(module, name, read_only)
    again = run_study(UNITS, ARMS, Performer(), Store(tmp_path, {}), progress=False)
    pd.testing.assert_frame_equal(again, whole)
    with pytest.raises(OSError, match="Read-only"):
        run_study(UNITS, ("c",), Performer(), Store(tmp_path, {}), progress=False)


def test_random_moments():
    """A few of `make crash`: killed, stopped and twice at once give the unbroken table."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.crash", "--moments", "4"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("|      4 |") == 6


@pytest.fixture
def both(probe, monkeypatch):
    """Does the same in two threads at once; gives both results, and what was done to all runs."""
    generate, runs = Probe.generate, []

    def counted(self, *arguments, **settings):
        runs.append(tuple(settings.get("interventions", ())))
        return generate(self, *arguments, **settings)

    monkeypatch.setattr(Probe, "generate", counted)

    def work(function):
        start, found = threading.Barrier(2), []

        def each():
            start.wait()
            found.append(function())

        threads = [threading.Thread(target=each) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        return found, runs

    return work


def test_an_attribution_is_shared(both, probe, image, tmp_path):
    settings = {"steps": 2, "progress": False}
    whole = attribution(probe, image, "fox", **settings)
    found, runs = both(lambda: attribution(probe, image, "fox", store=tmp_path, **settings))
    assert [each.data.identical(whole.data) for each in found] == [True, True]
    cut = [each for each in runs[1 + 5 :] if each]
    # each needs the full run's latents; each of the five blocks is cut once
    assert len(cut) == 5
    assert len(runs) - 6 <= 5 + 2
    assert stray(tmp_path) == []


def test_a_causal_map_is_shared(both, probe, image, tmp_path):
    settings = {"steps": 2, "block_window": 3, "step_window": 2, "progress": False}
    other = image.rotate(90)
    whole = causal_map(probe, image, "fox", other, **settings)
    units = whole.data["shift"].size
    found, runs = both(lambda: causal_map(probe, image, "fox", other, folder=tmp_path, **settings))
    assert [each.data.identical(whole.data) for each in found] == [True, True]
    patched = [each for each in runs[units + 2 :] if each and isinstance(each[0], rp.Patch)]
    # the base run once, the source run once for each, since its activations are needed
    assert len(patched) == units
    assert len(runs) - (units + 2) <= units + 1 + 2
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".png"}
