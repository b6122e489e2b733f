"""Temporary files of processes that are gone are removed, and nobody else's."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from recast_probe.files import stray
from recast_probe.files.atomic import atomic_path
from recast_probe.files.stray import sweep, temporary_prefix

WRITER = """
import os, signal, sys
from pathlib import Path
from recast_probe.files.atomic import atomic_folder, atomic_path
with atomic_path(Path(sys.argv[1]) / "a.txt"), atomic_folder(Path(sys.argv[1]) / "b") as folder:
    (folder / "c").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path):
    """A folder with what a killed process left."""
    subprocess.run([sys.executable, "-c", WRITER, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    return tmp_path


def test_what_a_killed_process_left_is_removed(killed):
    (killed / "mine.txt").write_text("stays")
    assert len(sweep(killed)) == 2
    assert [path.name for path in killed.iterdir()] == ["mine.txt"]
    assert sweep(killed) == []
    assert sweep(killed / "nowhere") == []


def test_the_next_file_written_there_sweeps_once(killed):
    with atomic_path(killed / "new.txt") as temporary:
        temporary.write_text("new")
    assert [path.name for path in killed.iterdir()] == ["new.txt"]


def test_files_at_work_and_files_of_others_stay(tmp_path, monkeypatch):
    ours = temporary_prefix(tmp_path / "a.txt")
    dead = ours.replace(f"-{os.getpid()}-", "-999999999-")
    elsewhere = dead.replace(stray._machine(), "0" * 8)
    foreign = [".a.abcdefgh.txt", ".git", f"{dead}abcdefgh"[1:], f"{dead}short", ".recast_probe"]
    names = [f"{ours}abcdefgh.txt", f"{elsewhere}abcdefgh.txt", *foreign]
    for name in [*names, f"{dead}abcdefgh.txt", f"{dead}abcdefgh"]:
        (tmp_path / name).touch()
    (tmp_path / f"{dead}linkedto.txt").symlink_to(tmp_path / foreign[0])
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    # nobody writes at a file for two hours without changing it
    before = time.time() - 7200
    os.utime(tmp_path / names[1], (before, before))
    os.utime(tmp_path / foreign[0], (before, before))
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names) - {names[1]}
    # a process of this machine may wait as long as it lives
    os.utime(tmp_path / names[0], (before, before))
    assert sweep(tmp_path) == []
    # where it cannot be asked, the hour decides
    entry = next(each for each in os.scandir(tmp_path) if each.name == names[0])
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "other")
        assert stray._is_stray(entry, stray._machine(), os.getpid())
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert sweep(tmp_path) == []


@pytest.mark.parametrize("name", ["a" * 251 + ".txt", "ä" * 125 + ".txt", "a.b.c", ".hidden"])
def test_every_name_that_a_file_can_have(tmp_path, name):
    with atomic_path(tmp_path / name) as temporary:
        assert stray._NAME.fullmatch(temporary.name)
        temporary.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == [name]
