"""The command line, called in this process on the tiny pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recast_probe.cli import main
from recast_probe.testing import tiny


@dataclass(frozen=True)
class Outcome:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The last line on standard error."""
        return self.err.strip().splitlines()[-1] if self.err.strip() else ""


Command = Callable[..., Outcome]


@pytest.fixture
def command(capsys: pytest.CaptureFixture) -> Command:
    """Runs `recast-probe` with these arguments."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code: int | str | None = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        assert isinstance(code, int)
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a reference image and its mask."""
    folder = tmp_path / "files"
    folder.mkdir()
    tiny.tiny_image().save(folder / "image.png")
    mask = np.zeros((tiny.SIZE, tiny.SIZE), np.uint8)
    mask[:32, :32] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    return folder


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A folder for results that holds results of before."""
    folder = tmp_path / "out"
    folder.mkdir()
    names = ("profile-00.nc", "full-a-seed0.png", "full-a-seed0.json", "summary.json")
    for name in (*names, "recast-eq4-a-seed0.png", "diagnostics.json", "report.html"):
        (folder / name).write_bytes(b"earlier " + name.encode())
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
