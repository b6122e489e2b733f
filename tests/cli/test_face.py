"""The command itself: help, version, completion, --json, samples, masks and results that stay."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import recast_probe as rp
from recast_probe import cli, pocket
from recast_probe.commands import generate as generating
from recast_probe.commands import output
from recast_probe.interventions.methods import METHODS
from recast_probe.masks import FINDERS
from tests.cli.conftest import contents
from tests.cli.test_bad_input import refused

COMMANDS = Path(cli.__file__).parent / "commands"


def test_help_loads_no_command():
    code = (
        "import sys\nfrom recast_probe.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'diffusers', 'rich', 'xarray'} & set(sys.modules)\n"
        "print(heavy, [name for name in sys.modules if name.startswith('recast_probe.commands.')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "set() ['recast_probe.commands.output']"
    for name in cli.COMMANDS:
        assert name in run.stdout


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "pocket"])
def test_the_list_says_what_the_commands_say(name):
    module = ast.parse((COMMANDS / f"{name}.py").read_text())
    (function,) = (
        each for each in module.body if isinstance(each, ast.FunctionDef) and each.name == name
    )
    said = " ".join((ast.get_docstring(function) or "").split("\n\n")[0].split())
    assert said.startswith(cli.COMMANDS[name].rstrip("."))


@pytest.mark.parametrize(
    ("prompts", "names"),
    [
        (["fox", "hen"], ["fox", "hen"]),
        (["fox", "fox!", "Fox"], ["fox", "fox-2", "fox-3"]),
        (["fox", "fox!", "fox 2"], ["fox", "fox-3", "fox-2"]),
        (["fox 2", "fox", "fox!"], ["fox-2", "fox", "fox-3"]),
        (["fox", "fox!", "fox 2", "fox-2"], ["fox", "fox-3", "fox-2", "fox-2-2"]),
        (["", "!", "prompt"], ["prompt", "prompt-2", "prompt-3"]),
    ],
)
def test_no_two_prompts_share_a_file(prompts, names):
    assert generating._distinct(prompts) == names


def test_version_and_suggestions(command):
    assert command("--version").out == f"recast-probe {rp.__version__}\n"
    assert "Did you mean 'profile'" in command("profil").err
    assert command().code in (0, 2)


def test_completion_names_commands_and_options():
    def complete(words: str, place: int) -> str:
        run = subprocess.run(
            [sys.executable, "-m", "recast_probe"],
            capture_output=True,
            text=True,
            env={
                "PATH": "",
                "_RECAST_PROBE_COMPLETE": "complete_bash",
                "COMP_WORDS": words,
                "COMP_CWORD": str(place),
            },
        )
        return run.stdout

    assert complete("recast-probe pro", 1).split() == ["profile"]
    assert "self-attention" in complete("recast-probe generate --method se", 3)


def test_json_stands_before_or_behind_the_command(command):
    before, behind = command("--json", "doctor"), command("doctor", "--json")
    assert json.loads(before.out) == json.loads(behind.out)
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(command("doctor").out)


def test_methods_and_finders_are_all_on_offer():
    from recast_probe.commands.mask import Finder

    assert set(generating.METHODS) == {*METHODS, "ranking"}
    assert {each.value for each in Finder} == set(FINDERS)


def test_samples_have_names(command, tmp_path):
    waffle = pocket.samples()[3]
    common = ("--prompt", "on snow", "--model", "tiny:flux-kontext", "--steps", 2)
    for number, name in enumerate(("waffle", "03-waffle")):
        named = ("--image", f"sample:{name}", "--mask", f"sample:{name}")
        made = command("profile", *named, *common, "--out", tmp_path / str(number), "--json")
        assert made.code == 0, made.err
    stored = rp.AttentionProfile.load(tmp_path / "1" / "profile-00.nc")
    (row,) = json.loads(made.out)["profiles"]
    assert row["reference_tokens"] == stored.layout.reference_tokens
    grid = stored.layout.references[0]
    inside = rp.diagnostics.mask_to_grid(waffle.mask, grid)
    assert row["overlap"]["base_rate"] == pytest.approx(inside.mean())
    refused(command("profile", "--image", "sample:wafle", *common, "--out", tmp_path), "waffle")

    diagnose = ("diagnose", tmp_path / "1" / "profile-00.nc", "--out", tmp_path / "report")
    refused(command(*diagnose, "--image", "sample:crab"), "not the picture")
    assert not (tmp_path / "report").exists()
    same = tmp_path / "same.png"
    waffle.image.save(same)
    assert command(*diagnose, "--image", same).code == 0


def test_several_methods_share_model_seed_and_noise(command, files, tiny_folder, tmp_path):
    out = tmp_path / "out"
    common = ("--model", tiny_folder, "--image", files / "image.png", "--steps", 3, "--out", out)
    made = command("profile", *common, "--prompt", "A fox, on snow!")
    assert made.code == 0, made.err
    arms = ("--method", "full,recast,random,ranking", "--ranking", out / "profile-00.nc")
    prompts = ("--prompt", "A fox, on snow!", "--prompt", "a fox on snow")
    run = ("generate", *common, *arms, *prompts, "--blocks", "all")
    made = command(*run, "--budget", "25%", "--json")
    assert made.code == 0, made.err
    found = json.loads(made.out)
    assert found["reference_tokens"] == 16
    names = {Path(row["file"]).name: row for row in found["images"]}
    assert len(names) == 8
    assert names["full-a-fox-on-snow-seed0.png"]["mean_budget"] == 16
    for name in ("recast", "random", "ranking"):
        for last in ("", "-2"):
            row = names[f"{name}-25percent-a-fox-on-snow{last}-seed0.png"]
            assert row["reference_tokens_per_step"] == [16, 4, 4]

    def pixels(name: str) -> np.ndarray:
        with Image.open(out / name) as opened:
            return np.asarray(opened)

    # the stored ranking is the one that ReCAST makes of the same first step
    stored, own = (
        pixels(f"{name}-25percent-a-fox-on-snow-seed0.png") for name in ("ranking", "recast")
    )
    np.testing.assert_array_equal(stored, own)

    before = contents(out)
    refused(command(*run, "--budget", "25%"), "is there already", "--overwrite")
    refused(command(*run, "--budget", "25%", "--budget", "4%", "--method", "recat"), "recast")
    assert contents(out) == before
    text = command(*run, "--budget", 3, "--method", "recast,random,ranking")
    assert text.code == 0, "another budget has names of its own"
    assert "The reference has 16 tokens" in text.out
    assert "16, then 3" in text.out
    other = ("--image", "sample:crab", "--method", "ranking", "--overwrite")
    refused(command("generate", *common, *arms[2:], *prompts, *other), "not the picture")


@pytest.mark.parametrize(
    "options",
    [
        ("--method", "full,full"),
        ("--method", "ranking"),
        ("--method", "full", "--ranking", "x.nc"),
        ("--method", "full,none", "--budget", 4),
        ("--method", "recast", "--refresh", 2),
        ("--method", "mask-oracle"),
        ("--steps", 0),
        ("--budget", "a few"),
        ("--image", "nowhere.png"),
        ("--mask", "nowhere.png"),
        ("--blocks", "single.99"),
        ("--model", "no-such-model"),
    ],
    ids=lambda options: " ".join(map(str, options)),
)
def test_arguments_are_checked_before_a_model_is_loaded(
    command, files, tmp_path, monkeypatch, options
):
    monkeypatch.setattr(generating, "open_probe", lambda *_: pytest.fail("the model was loaded"))
    given = ("--image", files / "image.png", "--prompt", "a", "--out", tmp_path / "out")
    options = tuple(map(str, options))
    refused(command("generate", *(given[2:] if options[0] == "--image" else given), *options))
    assert not (tmp_path / "out").exists()


def test_a_demo_that_is_done_stays(command, tmp_path):
    (tmp_path / "report.html").write_text("a report")
    outcome = command("demo", "--out", tmp_path, "--steps", 2)
    refused(outcome, "report.html", "--overwrite")
    assert contents(tmp_path) == {"report.html": b"a report"}


def test_the_mask_of_a_picture(command, tmp_path, monkeypatch):
    pytest.importorskip("cv2")
    monkeypatch.chdir(tmp_path)
    made = command("mask", "sample:waffle", "--json")
    assert made.code == 0, made.err
    facts = json.loads(made.out)
    with Image.open("waffle-mask.png") as opened:
        found = np.asarray(opened) > 127
    true = pocket.samples()[3].mask
    assert (found & true).sum() / (found | true).sum() > 0.8
    assert facts["share"] == pytest.approx(found.mean())
    assert 0 <= facts["probability_outside"] < facts["probability_inside"] <= 1
    before = contents(tmp_path)
    refused(command("mask", "sample:waffle"), "is there already")
    Image.new("RGB", (32, 32), "white").save("blank.png")
    refused(command("mask", "blank.png"), "blank.png")
    refused(command("mask", "sample:waffle", "--out", "mask.jpg"), ".png")
    assert set(contents(tmp_path)) == {*before, "blank.png"}


def test_tables_stand_in_columns():
    rows = [{"a": "x", "n": 2.0}, {"a": "longer", "n": 40, "more": None}]
    assert output.table(rows) == ["a        n  more", "x        2  -", "longer  40  -"]
