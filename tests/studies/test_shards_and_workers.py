"""Shares of a study, and what a worker of Ray checks, without Ray running."""

from __future__ import annotations

import argparse
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch

from recast_probe.errors import InputError, MissingPackageError
from recast_probe.probe import Probe
from recast_probe.studies import Outcome, Store, Unit, run_study
from recast_probe.studies.engine import ray_engine, ray_worker
from recast_probe.studies.engine.options import (
    add_engine_options,
    end_of_shard,
    engine_options,
)
from recast_probe.studies.engine.ray_cluster import ADDRESS, connected, starts_own
from recast_probe.studies.engine.ray_worker import Worker, Workplace, packed
from recast_probe.studies.engine.same_numbers import numeric_facts, numeric_settings, use_settings
from recast_probe.studies.engine.sending import received, sent
from recast_probe.testing import tiny

UNITS = [Unit({"subject": f"s{number}"}, number) for number in range(7)]
ARMS = ["a", "b"]


def perform(unit, missing):
    return [Outcome(arm, {"value": unit.payload}) for arm in missing]


def nothing(unit, missing):
    raise AssertionError("nothing is left to run")


def starved(unit, missing):
    raise MemoryError("300 GiB")


def study(folder, work=perform, **settings):
    return run_study(UNITS, ARMS, work, Store(folder, {}), progress=False, **settings)


def test_shards_make_the_table_together(tmp_path):
    whole = study(tmp_path / "whole")
    assert "shard" not in whole.attrs
    parts = [study(tmp_path / "shared", shard=(number, 3)) for number in (2, 1, 3)]
    assert [part.attrs["shard"] for part in parts] == ["2/3", "1/3", "3/3"]
    assert [sorted(set(part["value"])) for part in parts] == [[1, 4], [0, 3, 6], [2, 5]]
    # also on Ray: what is there already needs no worker
    for engine in ("local", "ray"):
        table = study(tmp_path / "shared", nothing, engine=engine)
        pd.testing.assert_frame_equal(table, whole, check_exact=True)
        assert "shard" not in table.attrs


def test_more_shards_than_units(tmp_path):
    part = study(tmp_path, nothing, shard=(9, 10))
    assert part.columns.to_list() == ["subject", "arm"]
    assert len(part) == 0


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"shard": (4, 3)}, "no shard 4 of 3"),
        ({"shard": (0, 3)}, "the shard.*not 0"),
        ({"shard": (1, 0)}, "number of shards.*not 0"),
        ({"shard": "1/3"}, "'1/3'"),
        ({"engine": "slurm"}, "no engine 'slurm'"),
        ({"workers": 2}, "workers=2"),
        ({"gpus_per_worker": 1, "address": "auto"}, "gpus_per_worker=1, address='auto'"),
        ({"engine": "ray", "workers": 0}, "workers.*not 0"),
        ({"engine": "ray", "gpus_per_worker": -1}, "not -1"),
        ({"engine": "ray", "gpus_per_worker": 1.5}, "not 1.5"),
        ({"engine": "ray", "gpus_per_worker": float("nan")}, "gpus_per_worker"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, settings, named):
    with pytest.raises(InputError, match=named):
        study(tmp_path, nothing, **settings)


def test_ray_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match=r"'\.\[ray\]'"):
        study(tmp_path, engine="ray")


def test_options_of_a_command_line(capsys):
    parser = argparse.ArgumentParser()
    add_engine_options(parser)
    assert engine_options(parser.parse_args([])) == {
        "engine": "local",
        **dict.fromkeys(("workers", "gpus_per_worker", "address", "shard")),
    }
    given = "--engine ray --workers 4 --gpus-per-worker 0.5 --address auto --shard 3/8"
    assert engine_options(parser.parse_args(given.split())) == {
        "engine": "ray",
        "workers": 4,
        "gpus_per_worker": 0.5,
        "address": "auto",
        "shard": (3, 8),
    }
    for wrong in ("9/8", "1", "a/b", "0/2"):
        with pytest.raises(SystemExit):
            parser.parse_args(["--shard", wrong])
        assert "argument --shard: " in capsys.readouterr().err


def test_a_program_ends_after_its_shard(tmp_path, capsys):
    chosen = argparse.Namespace(shard=None)
    end_of_shard(chosen, Store(tmp_path, {}))
    chosen.shard = (3, 8)
    with pytest.raises(SystemExit) as stop:
        end_of_shard(chosen, Store(tmp_path, {}))
    assert stop.value.code == 0
    assert "Shard 3 of 8 is done" in capsys.readouterr().err


def test_a_probe_is_opened_anew_where_it_arrives():
    probe = Probe.tiny("flux-kontext")
    content = sent({"one": probe, "two": probe}, "It")
    assert content.devices == {"cpu"}
    assert len(content.content) < 10_000, "weights are not sent"
    found = received(content.content)
    assert found["one"] is found["two"] is not probe
    assert found["one"].identity() == probe.identity()
    assert found["one"].name == "tiny:flux-kontext"
    built = Probe.from_function(tiny.build_tiny_pipeline, "mine")
    assert received(sent(built, "It").content).name == "mine"
    with torch.no_grad():
        next(built.pipe.transformer.parameters()).add_(1)
    with pytest.raises(InputError, match=r"another pipeline .*fingerprint"):
        received(sent(built, "It").content)
    probe.pipe.scheduler.register_to_config(shift=2.5)
    with pytest.raises(InputError, match=r"another pipeline .*scheduler"):
        received(sent(probe, "It").content)


@pytest.fixture
def place(tmp_path):
    """Where a worker is asked to work; this process computes as before afterwards."""
    before = numeric_settings()
    store = Store(tmp_path / "r", {"seed": 0})
    (store.folder / "mark").touch()
    yield Workplace(
        store.folder, store.settings, tmp_path, numeric_settings(), numeric_facts(False), False
    )
    use_settings(before)


def test_a_worker_runs_units(place, monkeypatch):
    monkeypatch.chdir(place.directory)
    worker = Worker()
    assert worker.open(place, "mark", sent(perform, "It").content)[0] == "ready"
    unit = sent(UNITS[2], "It").content
    assert [*worker.run(unit, ["a"])] == [("stored", "a", {"value": 2}), ("done", [])]
    with worker.store.claim({"subject": "s2"}):
        assert [*worker.run(unit, ARMS)] == [("held",)]
    worker.perform = starved
    assert [*worker.run(sent(UNITS[3], "It").content, ARMS)] == [("memory", "MemoryError: 300 GiB")]
    worker.perform = nothing
    # one run is there meanwhile, and so nothing is left but what fails
    assert next(worker.run(unit, ARMS)) == ("stored", "a", {"value": 2})


@pytest.mark.parametrize(
    ("change", "mark", "named"),
    [
        ({}, "no mark", "one shared file system"),
        ({"directory": "nowhere"}, "mark", "working directory"),
        ({"settings": {"seed": 1}}, "mark", "other settings: seed"),
        ({"facts": {"cpu": "AVX9"}}, "mark", "AVX9 here"),
    ],
)
def test_a_worker_elsewhere_is_refused(place, monkeypatch, change, mark, named):
    monkeypatch.setattr(ray_worker, "SEEN_WITHIN_SECONDS", 0)
    monkeypatch.chdir(place.directory)
    if "directory" in change:
        change = {"directory": place.directory / change["directory"]}
    if "facts" in change:
        change = {"facts": place.facts | change["facts"]}
    word, error = Worker().open(replace(place, **change), mark, sent(perform, "It").content)
    assert word == "failed"
    with pytest.raises(InputError, match=named):
        raise pickle.loads(error)


def test_a_worker_computes_as_the_program_does(place, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    use_settings(place.numeric | {"threads": 3, "environment": None, "deterministic": True})
    assert torch.get_num_threads() == 3
    assert torch.are_deterministic_algorithms_enabled()
    assert "OMP_NUM_THREADS" not in os.environ


def test_every_switch_of_numbers_is_taken_over(place):
    """Each is changed, read, put back as a worker has it, and taken over."""
    cuda, mkldnn = torch.backends.cuda, torch.backends.mkldnn
    sums = "allow_bf16_reduced_precision_reduction"
    cuda.enable_flash_sdp(False)
    cuda.enable_mem_efficient_sdp(False)
    cuda.enable_cudnn_sdp(False)
    cuda.allow_fp16_bf16_reduction_math_sdp(True)
    setattr(cuda.matmul, sums, False)
    cuda.matmul.allow_fp16_reduced_precision_reduction = False
    mkldnn.enabled = False
    changed = numeric_settings()
    use_settings(place.numeric)
    assert numeric_settings() == place.numeric
    assert (cuda.flash_sdp_enabled(), mkldnn.enabled, getattr(cuda.matmul, sums)) == (True,) * 3
    use_settings(pickle.loads(pickle.dumps(changed)))
    assert numeric_settings() == changed
    assert not cuda.mem_efficient_sdp_enabled()
    assert not cuda.cudnn_sdp_enabled()
    assert cuda.fp16_bf16_reduction_math_sdp_allowed()
    assert cuda.math_sdp_enabled()


def test_marks_of_waiting_workers_stay_young(tmp_path):
    """Other machines sweep what did not change for an hour."""
    mark = tmp_path / "mark"
    mark.touch()
    os.utime(mark, (0, 0))
    crew = argparse.Namespace(opening={"answer": (None, mark)}, marked=time.monotonic())
    ray_engine.Crew._keep_marks(crew)
    assert mark.stat().st_mtime == 0, "not at every answer"
    crew.marked -= 61
    ray_engine.Crew._keep_marks(crew)
    assert time.time() - mark.stat().st_mtime < 60


@pytest.mark.parametrize(
    ("address", "named", "started", "own"),
    [
        *((None, None, False, True), (None, "local", False, True), ("local", "x:1", False, True)),
        *((None, "x:1", False, False), ("auto", None, False, False), (None, None, True, False)),
    ],
)
def test_a_ray_of_our_own_is_that_which_no_address_names(monkeypatch, address, named, started, own):
    monkeypatch.delenv(ADDRESS, raising=False)
    if named is not None:
        monkeypatch.setenv(ADDRESS, named)
    ray = argparse.Namespace(is_initialized=lambda: started)
    assert starts_own(ray, address) is own


def test_errors_that_cannot_be_sent_say_what_they_were():
    class OwnError(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")

    found = pickle.loads(packed(OwnError(1, 2)))
    assert (type(found), str(found)) == (RuntimeError, "OwnError: 1 and 2")


class SlowRay:
    """Starts a process, and is not ready in time at first."""

    def __init__(self, fails):
        self.fails, self.started = fails, []

    def is_initialized(self):
        return False

    def init(self, **settings):
        self.settings = settings
        code = "import time; time.sleep(60)  # as ray does"
        self.started.append(subprocess.Popen([sys.executable, "-c", code]))
        if len(self.started) <= self.fails:
            raise Exception("The current node timed out during startup.")

    def shutdown(self):
        for each in self.started:
            each.kill()


def test_a_ray_that_is_slow_to_start_is_tried_again(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    slow = SlowRay(fails=2)
    with connected(slow, None, 3):
        *failed, last = slow.started
        assert [each.wait(5) for each in failed] == [-signal.SIGKILL] * 2
        assert last.poll() is None
    assert slow.settings["num_cpus"] == 3
    for address, fails, count in ((None, 3, 3), ("node:6379", 1, 1)):
        slow = SlowRay(fails)
        with pytest.raises(InputError, match="timed out"), connected(slow, address, 1):
            pass
        assert len(slow.started) == count
