"""The README's code does what it says, with fewer steps, on the bundled model."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from recast_probe import pocket
from recast_probe.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^recast-probe (.*)$", TEXT.replace("\\\n", " "), flags=re.MULTILINE)
QUICK = {
    "demo": ["--references", "1", "--prompts", "2", "--steps", "2"],
    "profile": ["--steps", "2"],
    "generate": ["--steps", "2"],
    "pocket evaluate": ["--subjects", "2", "--steps", "2"],
}


def test_the_ten_lines_of_python(tmp_path, monkeypatch):
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) == 10
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(block.replace("steps=28, ", "").replace("seed=0", "steps=2, seed=0"), names)
    assert (tmp_path / "recast.png").is_file()
    assert names["profile"].score.sizes["step"] == 2
    assert set(names["pruned"].reference_tokens_per_step) == {64}


def test_the_ten_lines_of_shell(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sample = pocket.samples()[2]
    sample.image.save("fox.png")
    sample.image.convert("L").point(lambda value: 255 if value > 128 else 0).save("fox-mask.png")
    here = [
        shlex.split(line, comments=True) for line in COMMANDS if "black-forest-labs" not in line
    ]
    assert len(here) == 10
    for words in here:
        name = " ".join(words[: 2 if words[0] == "pocket" else 1])
        try:
            main([*words, *([] if "--help" in words else QUICK.get(name, []))])
        except SystemExit as stop:
            pytest.fail(f"{words}: exit code {stop.code}, {capsys.readouterr().err}")
    for made in ("demo/report.html", "fox/report.html", "fox/recast-00-seed0.png"):
        assert (tmp_path / "out" / made).is_file()


def test_what_the_readme_points_to_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), f"the README points to {target}, which is not there"


@pytest.mark.parametrize("target", ["demo", "test", "lint", "train-pocket"])
def test_make_knows_its_targets(target):
    run = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
