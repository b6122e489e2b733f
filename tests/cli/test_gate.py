"""`recast-probe gate`: its words, files and exit codes, and the commands of docs/gate.md."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from recast_probe import pocket
from recast_probe.commands.gate import EXIT_CODES
from recast_probe.files.envelope import read_sealed
from recast_probe.testing import tiny
from tests.cli.test_bad_input import refused

PAGE = (Path(__file__).parents[2] / "docs" / "gate.md").read_text()
QUICK = ("--subjects", 1, "--steps", 2, "--no-controls")


@pytest.fixture
def table(tmp_path):
    """Three references in a table."""
    lines = ["image,prompt"]
    for seed in range(3):
        tiny.tiny_image(seed=seed).save(tmp_path / f"{seed}.png")
        lines.append(f"{seed}.png,fox")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    return tmp_path / "table.csv"


def options(table, *more):
    return (
        *("gate", "--model", "tiny:flux-kontext", "--images", table, "--masks", "none"),
        *("--steps", 2, "--out", table.parent / "out", *more),
    )


def test_a_table_of_your_own(command, table):
    found = command(*options(table, "--method", "reuse", "--no-controls"))
    assert found.code == EXIT_CODES["cannot tell"] == 3, found.err
    assert found.out.startswith("reuse: cannot tell, since fewer than 8 subjects")
    assert "no reference: the method" in found.out
    assert "| reuse " in found.out
    assert "9 to 9 runs of about" in found.err
    out = table.parent / "out"
    stored = read_sealed(out / "gate.json", "Gate")
    assert stored["verdict"] == "cannot tell"
    assert stored["provenance"]["benchmark"] == "folder"
    assert set(stored["files"]) >= {"report.html", "gate.png", "runs-table.csv"}
    again = command(*options(table, "--method", "reuse", "--no-controls", "--json"))
    assert json.loads(again.out)["loss"] == stored["loss"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--method", "full"), "no saving"),
        (("--method", "reuse", "--limit", "much"), "much"),
        (("--method", "reuse", "--limit", "120%"), "100"),
        (("--method", "reuse", "--metric", "lpips-and-more"), "lpips-and-more"),
        (("--method", "reuse", "--images", "nowhere"), "nowhere"),
        (("--method", "recast", "--refresh", 2), "reuses nothing"),
        (("--method", "random", "--budget", 99), "99"),
        (("--method", "fewer-steps"), "from 1 to 1"),
        (("--method", "fewer-steps", "--computed", 2), "not 2"),
        (("--method", "fewer-steps", "--computed", 1, "--budget", 4), "neither budget"),
    ],
)
def test_bad_options(command, table, more, words):
    refused(command(*options(table, *more)), words)


@pytest.mark.parametrize(
    ("limit", "verdict", "code"), [("0.5", "passes", 0), ("0.000000001", "fails", 1)]
)
def test_the_exit_code_is_the_verdict(command, table, limit, verdict, code):
    """Likeness to the full run, of which any change loses something, and no change half."""
    rows = [f"{seed % 3}.png,{word},s{seed}" for seed, word in enumerate("abcdefgh")]
    table.write_text("\n".join(["image,prompt,subject", *rows]))
    method = ("--method", "recast", "--budget", 1, "--metric", "ssim", "--limit", limit)
    found = command(*options(table, *method, "--no-controls", "--json"))
    assert found.code == code, found.err
    made = json.loads(found.out)
    assert (made["verdict"], made["subjects"]) == (verdict, 8)
    assert (made["high"] < float(limit)) == (verdict == "passes")


def test_the_commands_of_the_page(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    pocket.samples()[2].image.save("fox.png")
    Path("fox.csv").write_text("image,prompt\nfox.png,a fox on a beach\n")
    lines = re.findall(r"^recast-probe (.*)$", PAGE, flags=re.MULTILINE)
    here = [line for line in lines if "black-forest-labs" not in line]
    assert (len(lines), len(here)) == (3, 2)
    for line in here:
        found = command(*shlex.split(line), *QUICK)
        assert found.code == 3, found.err
        assert "one subject" in found.out
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    block = block.replace("subjects=150", "subjects=1").replace("refresh=4,", "steps=2,")
    names: dict = {}
    exec(block, names)
    assert names["found"].verdict == "cannot tell"
    for made in ("gate/report.html", "fox-gate/gate.png", "gate-in-python/runs/study.json"):
        assert (tmp_path / "out" / made).is_file()
