"""The house's rules: imports run downhill, nothing heavy or foreign is pulled in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from recast_probe._utils.optional import OPTIONAL
from recast_probe.cli import main

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "recast_probe"


def test_imports_run_downhill():
    """The order of the folders, and no circle in any, are contracts in pyproject.toml."""
    run = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert run.returncode == 0, run.stdout


def test_torchvision_is_neither_needed_nor_pulled_in():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(name for extra in extras for name in extra)]
    assert not [name for name in wanted if name.startswith(("torchvision", "timm", "lpips"))]
    assert "torchvision" not in (ROOT / "constraints.txt").read_text()


def test_every_extra_and_every_row_of_the_doctor_has_code_that_needs_it():
    """What can be installed for a purpose is imported for it somewhere."""
    modules = {package.name: module for module, package in OPTIONAL.items()}
    # the doctor only looks whether they are there, and the registry only names them
    files = [
        path for path in PACKAGE.rglob("*.py") if path.name not in ("doctor.py", "optional.py")
    ]
    source = "\n".join(path.read_text() for path in files)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    promised = {
        re.split(r"[<>=!;\[ ]", requirement)[0]
        for extra, requirements in extras.items()
        if extra not in ("dev", "docs", "notebooks")  # tools, not imports
        for requirement in requirements
    }
    assert "onnxruntime" in promised
    for name in promised:
        module = modules.get(name, name)
        taken = rf"(?:import|from) {module}\b|\"{module}[\".]"
        assert re.search(taken, source), f"nothing needs {module}"
    for package in OPTIONAL.values():
        unknown = set(package.extras) - set(extras)
        assert not unknown, f"{package.name} names an extra that is not there"


def test_tested_versions_are_pinned():
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    tested = [name for extra in ("dev", "notebooks", "metrics", "masks") for name in extras[extra]]
    for requirement in project["dependencies"] + tested:
        name = re.split(r"[<>=!;\[ ]", requirement)[0]
        assert name in pins, f"{name} is not in constraints.txt"


def test_the_project_speaks_only_of_itself():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    absolute = re.compile(r"(?<![\w.])/(?:root|work)/\w")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".txt", ".ipynb", ".json"} and path.is_file():
            assert not absolute.search(path.read_text()), f"{name} names a path of some machine"


def test_the_command_is_installed_and_answers():
    run = subprocess.run(
        [sys.executable, "-m", "recast_probe.cli", "--help"], capture_output=True, text=True
    )
    assert run.returncode == 0
    for command in ("demo", "profile", "diagnose", "generate", "score", "doctor", "pocket"):
        assert command in run.stdout


def test_readme_commands_name_options_that_exist(monkeypatch, capsys):
    for name, value in {"COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    lines = re.findall(r"^recast-probe (.*?)(?:\s+#.*)?$", text, flags=re.MULTILINE)
    assert len(lines) >= 10
    known: dict[str, str] = {}
    for line in lines:
        words = [word for word in line.split() if word != "--json"]
        count = 2 if words[0] == "pocket" else 1
        command = " ".join(words[:count])
        if command not in known:
            with suppress(SystemExit):
                main([*words[:count], "--help"])
            known[command] = capsys.readouterr().out
            assert "--help" in known[command]
        for option in re.findall(r"--[a-z-]+", line.replace("--json", "")):
            assert option in known[command], f"{command} has no option {option}"


def test_the_wheel_holds_everything(tmp_path):
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    listed = subprocess.run(
        ["git", "ls-files", "recast_probe"], cwd=ROOT, capture_output=True, text=True
    )
    wanted = set(listed.stdout.split("\n")) - {""} or {
        "recast_probe/metrics/weights/mobilenet_v2_imagenet.safetensors",
        "recast_probe/figures/fonts/Inter-Regular.ttf",
        "recast_probe/pocket/samples/samples.json",
        "recast_probe/pocket/assets/held_out.webp",
    }
    missing = {name for name in wanted if (ROOT / name).is_file()} - packed
    assert not missing
    assert not [name for name in packed if "__pycache__" in name or name.startswith("tests/")]
    assert Path(wheel).stat().st_size < 50_000_000
