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


@pytest.mark.parametrize("model", ["pocket()", 'tiny("flux2")', 'tiny("qwen-image-edit")'])
def test_the_ten_lines_of_python(tmp_path, monkeypatch, model):
    """On other models too: with several references, and without single-stream blocks."""
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) == 10
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    block = block.replace("Probe.pocket()", f"Probe.{model}")
    exec(block.replace("steps=28, ", "").replace("seed=0", "steps=2, seed=0"), names)
    assert (tmp_path / "recast.png").is_file()
    assert names["profile"].score.sizes["step"] == 2
    assert set(names["pruned"].reference_tokens_per_step) == {64}


def test_the_ten_lines_of_shell(tmp_path, monkeypatch, capsys):
    """In their order, in an empty folder; where a line is long, with fewer steps and subjects."""
    monkeypatch.chdir(tmp_path)
    here = [
        shlex.split(line, comments=True) for line in COMMANDS if "black-forest-labs" not in line
    ]
    assert len(here) == 10
    before: dict[Path, bytes] = {}
    for words in here:
        names = [each for each in words if not each.startswith("-")]
        quick = QUICK.get(" ".join(names[: 2 if names[0] == "pocket" else 1]), [])
        try:
            main([*words, *quick])
        except SystemExit as stop:
            pytest.fail(f"{words}: exit code {stop.code}, {capsys.readouterr().err}")
        assert all(path.read_bytes() == data for path, data in before.items()), "nothing replaced"
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    made = ["small-demo/report.html", "waffle/report/report.html", "waffle/explore.html"]
    made += ["crab-mask.png", *(f"waffle/{name}-keep-*-seed0.png" for name in ("full", "none"))]
    made += ["waffle/recast-25percent-keep-*-seed0.png", "waffle/ranking-32-keep-*-seed0.png"]
    for name in made:
        assert len(list((tmp_path / "out").glob(name))) == 1, name


def test_the_readme_says_how_long_a_line_takes():
    for line in TEXT.splitlines():
        if re.match(r"(make|recast-probe) (demo|test|pocket evaluate)", line):
            assert re.search("# .*minutes", line), line


def test_the_lines_of_shell_on_tiny_models(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fox, hat = pocket.samples()[2:4]
    fox.image.save("fox.png")
    hat.image.save("hat.png")
    fox.image.convert("L").point(lambda value: 255 if value > 128 else 0).save("mask.png")
    text = (ROOT / "docs" / "pipelines.md").read_text()
    lines = re.findall(r"^recast-probe (.*)$", text, flags=re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        try:
            main(shlex.split(line))
        except SystemExit as stop:
            pytest.fail(f"{line}: exit code {stop.code}, {capsys.readouterr().err}")
    for made in ("profile-00.nc", "recast-eq4-snow-seed0.png"):
        assert (tmp_path / "out" / "tiny" / made).is_file()


def test_what_the_readme_points_to_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), f"the README points to {target}, which is not there"


@pytest.mark.parametrize("target", ["demo", "test", "lint", "families", "train-pocket"])
def test_make_knows_its_targets(target):
    run = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
