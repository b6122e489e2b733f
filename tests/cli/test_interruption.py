"""A full disk and Ctrl-C: what was finished stays, nothing is half written."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from recast_probe.files import atomic
from recast_probe.probe import Probe
from tests.cli.conftest import contents


@pytest.fixture
def full_disk(monkeypatch):
    """From now on the disk is full: data is lost when it is flushed."""

    def flush(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", flush)


@pytest.mark.parametrize("kind", ["profile", "generate"])
def test_a_full_disk(command, files, earlier, tiny_folder, full_disk, kind):
    before = contents(earlier)
    outcome = command(
        *(kind, "--model", tiny_folder, "--image", files / "image.png", "--prompt", "a"),
        *("--steps", 1, "--overwrite", "--out", earlier, "--json"),
    )
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.message.startswith("recast-probe: No space left on device")
    assert "Traceback" not in outcome.err
    assert contents(earlier) == before


def test_a_full_disk_while_diagnosing(command, earlier, tmp_path, probe, image, monkeypatch):
    profile = probe.profile(image, "a", steps=1, progress=False).save(tmp_path / "a.nc")
    before = contents(earlier)

    def write(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", write)
    outcome = command("diagnose", profile, "--overwrite", "--out", earlier)
    monkeypatch.undo()
    assert outcome.code == 2
    assert "No space left on device" in outcome.message
    assert contents(earlier) == before


def test_interrupting_generate_keeps_finished_images(
    command, files, tiny_folder, tmp_path, monkeypatch
):
    finish, done = Probe.generate, []

    def generate(self, *arguments, **settings):
        if done:
            raise KeyboardInterrupt
        done.append(arguments)
        return finish(self, *arguments, **settings)

    monkeypatch.setattr(Probe, "generate", generate)
    out = tmp_path / "out"
    outcome = command(
        *("generate", "--model", tiny_folder, "--image", files / "image.png", "--steps", 1),
        *("--prompt", "a", "--prompt", "b", "--prompt", "c", "--out", out, "--json"),
    )
    assert (outcome.code, outcome.out) == (130, "")
    assert "1 of 3 images are done" in outcome.err
    assert str(out) in outcome.err
    assert "Traceback" not in outcome.err
    assert set(contents(out)) == {"full-a-seed0.png", "full-a-seed0.json"}
