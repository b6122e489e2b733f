"""Bad input: one clear line, exit code 2, nothing on standard output, earlier results untouched."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import contents


def refused(outcome, *words: str) -> None:
    """The outcome of a command that was refused for a reason that names `words`."""
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    assert outcome.message.startswith("recast-probe: ")
    for word in words:
        assert word in outcome.message


@pytest.fixture
def spoiled(files):
    """Images that cannot be used."""
    (files / "text.png").write_text("no image at all")
    whole = (files / "image.png").read_bytes()
    (files / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (64, 32), 255).save(files / "wide.png")
    Image.new("L", (64, 64), 0).save(files / "empty.png")
    Image.new("L", (64, 64), 255).save(files / "whole.png")
    return files


@pytest.mark.parametrize("kind", ["profile", "generate"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"--image": "text.png"}, ["text.png", "cannot be read as an image"]),
        ({"--image": "cut.png"}, ["cut.png"]),
        ({"--image": "nowhere.png"}, ["nowhere.png", "no file"]),
        ({"--mask": "wide.png"}, ["64 x 32", "64 x 64", "aspect"]),
        ({"--mask": "text.png"}, ["The mask"]),
        ({"--blocks": "triple.7"}, ["triple.7"]),
        ({"--blocks": "single.99"}, ["single.99"]),
        ({"--blocks": ","}, ["--blocks"]),
        ({"--steps": "0"}, ["steps", "0"]),
        ({"--seed": "-1"}, ["seed", "-1"]),
        ({"--dtype": "float8"}, ["float8", "bfloat16"]),
        ({"--device": "abacus"}, ["abacus"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_values(command, spoiled, earlier, tiny_folder, kind, options, words):
    given = {
        "--model": tiny_folder,
        "--image": "image.png",
        "--prompt": "a fox",
        "--steps": "2",
        "--out": earlier,
        **({"--method": "recast"} if kind == "generate" else {}),
        **options,
    }
    for name in ("--image", "--mask"):
        if name in given:
            given[name] = spoiled / str(given[name])
    before = contents(earlier)
    refused(
        command(kind, *(part for pair in given.items() for part in pair), "--overwrite", "--json"),
        *words,
    )
    assert contents(earlier) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--budget", 0), ["1"]),
        (("--budget", -3), ["-3"]),
        (("--budget", 17), ["17", "16"]),
        (("--budget", "eq4:4:99"), ["16"]),
        (("--budget", "eq4:9:4"), ["9", "4"]),
        (("--budget", "eq4:4"), ["eq4:MINIMUM:MAXIMUM"]),
        (("--budget", "110%"), ["share"]),
        (("--budget", "most"), ["most", "eq4"]),
    ],
)
@pytest.mark.parametrize("method", ["recast", "random"])
def test_budgets_that_do_not_fit(command, files, earlier, tiny_folder, method, options, words):
    before = contents(earlier)
    outcome = command(
        *("generate", "--model", tiny_folder, "--image", files / "image.png", "--prompt", "a"),
        *("--steps", 3, "--method", method, "--overwrite", "--out", earlier, *options),
    )
    refused(outcome, *words)
    assert contents(earlier) == before


def test_a_budget_without_a_use_is_refused(command, files, earlier, tiny_folder):
    common = ("--model", tiny_folder, "--image", files / "image.png", "--prompt", "a")
    outcome = command(
        "generate", *common, "--method", "none", "--budget", 4, "--overwrite", "--out", earlier
    )
    refused(outcome, "none", "all tokens or none")


@pytest.mark.parametrize("mask", ["empty", "whole"])
def test_masks_that_divide_nothing(command, spoiled, earlier, tiny_folder, mask):
    before = contents(earlier)
    outcome = command(
        *("profile", "--model", tiny_folder, "--image", spoiled / "image.png", "--prompt", "a"),
        *("--steps", 2, "--mask", spoiled / f"{mask}.png", "--overwrite", "--out", earlier),
    )
    refused(outcome, "mask", "every" if mask == "whole" else "no")
    assert contents(earlier) == before


def test_a_mask_without_a_subject(command, spoiled, earlier, tiny_folder):
    before = contents(earlier)
    outcome = command(
        *("generate", "--model", tiny_folder, "--image", spoiled / "image.png", "--prompt", "a"),
        *("--steps", 1, "--mask", spoiled / "empty.png", "--overwrite", "--out", earlier),
    )
    refused(outcome, "empty.png", "no pixel")
    assert contents(earlier) == before


def test_diagnosing_with_another_image(command, spoiled, earlier, tmp_path, probe, image):
    profile = probe.profile(image, "a", steps=1, progress=False).save(tmp_path / "a.nc")
    before = contents(earlier)
    for option in ("--mask", "--image"):
        outcome = command(
            "diagnose", profile, option, spoiled / "wide.png", "--overwrite", "--out", earlier
        )
        refused(outcome, "64 x 32", "64 x 64")
    assert contents(earlier) == before


@pytest.mark.parametrize(
    "options", [("--budget", "eq4:2:4:nan"), ("--budget", "eq4:2:4:-1"), ("--seed", 2**70)]
)
def test_numbers_out_of_reach(command, files, earlier, tiny_folder, options):
    before = contents(earlier)
    outcome = command(
        *("generate", "--model", tiny_folder, "--image", files / "image.png", "--prompt", "a"),
        *("--steps", 2, "--method", "recast", "--overwrite", "--out", earlier, *options),
    )
    refused(outcome)
    assert contents(earlier) == before


@pytest.mark.parametrize("steps", ["0,two", "7", "-1"])
def test_profile_steps_outside_the_run(command, files, earlier, tiny_folder, steps):
    before = contents(earlier)
    common = ("--model", tiny_folder, "--image", files / "image.png", "--prompt", "a")
    outcome = command(
        "profile", *common, "--steps", 3, "--profile-steps", steps, "--overwrite", "--out", earlier
    )
    refused(outcome)
    assert contents(earlier) == before


@pytest.mark.parametrize("kind", ["profile", "generate"])
def test_an_empty_list_of_prompts(command, files, earlier, tiny_folder, kind):
    before = contents(earlier)
    outcome = command(
        kind,
        "--model",
        tiny_folder,
        "--image",
        files / "image.png",
        "--overwrite",
        "--out",
        earlier,
        "--json",
    )
    assert (outcome.code, outcome.out) == (2, "")
    assert "--prompt" in outcome.err
    assert contents(earlier) == before


def test_a_pipeline_of_another_class(command, files, earlier, tiny_folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    index = json.loads((other / "model_index.json").read_text())
    (other / "model_index.json").write_text(json.dumps(index | {"_class_name": "SanaPipeline"}))
    common = ("--image", files / "image.png", "--prompt", "a", "--overwrite", "--out", earlier)
    refused(command("profile", "--model", other, *common), "SanaPipeline", "FluxKontextPipeline")


def test_models_that_are_not_there(command, files, earlier, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    common = ("--image", files / "image.png", "--prompt", "a", "--overwrite", "--out", earlier)
    refused(command("profile", "--model", tmp_path, *common), "model_index.json")
    outcome = command("profile", "--model", "nobody/no-such-model", *common)
    refused(outcome, "nobody/no-such-model", "hf auth login")
    refused(command("pocket", "evaluate", "--model", tmp_path), "model_index.json")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:2000] + bytes([data[2000] ^ 1]) + data[2001:],
        lambda data: b"not a profile",
        lambda data: b"",
    ],
    ids=["cut", "one bit", "foreign", "empty"],
)
def test_damaged_profiles(command, earlier, tmp_path, probe, image, damage):
    good = probe.profile(image, "a", steps=1, progress=False).save(tmp_path / "good.nc")
    bad = tmp_path / "bad.nc"
    bad.write_bytes(damage(good.read_bytes()))
    before = contents(earlier)
    refused(command("diagnose", good, bad, "--overwrite", "--out", earlier, "--json"), "bad.nc")
    refused(command("diagnose", tmp_path / "none.nc", "--overwrite", "--out", earlier), "none.nc")
    assert contents(earlier) == before


def test_profiles_that_do_not_go_together(command, earlier, tmp_path, probe, image):
    tall = Image.fromarray(np.asarray(image)[:, :32])
    profiles = [
        probe.profile(picture, "a", steps=1, progress=False).save(tmp_path / f"{number}.nc")
        for number, picture in enumerate((image, tall))
    ]
    before = contents(earlier)
    refused(command("diagnose", *profiles, "--overwrite", "--out", earlier))
    assert contents(earlier) == before


def test_places_that_are_no_folder(command, files, tiny_folder, tmp_path):
    common = ("--model", tiny_folder, "--image", files / "image.png", "--prompt", "a", "--steps", 1)
    file = files / "image.png"
    refused(command("profile", *common, "--out", file), "is a file")
    refused(command("profile", *common, "--out", file / "inside"), "inside")


def test_pocket_assets_explains_what_is_missing(command, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    refused(command("pocket", "assets", "--out", tmp_path), "npm", "--fluent")
    broken = tmp_path / "broken.tgz"
    broken.write_bytes(b"no archive")
    given = ("--fluent", broken, "--names", broken)
    refused(command("pocket", "assets", "--out", tmp_path, *given), "damaged")
    refused(command("pocket", "assets", "--out", tmp_path, "--fluent", tmp_path / "x"), "no file")
    refused(command("pocket", "train", "--pack", tmp_path / "x.npz", "--out", tmp_path), "x.npz")


def test_usage_errors_keep_standard_output_clean(command):
    outcome = command("profile", "--no-such-option", "--json")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--no-such-option" in outcome.err
    assert command("generate", "--method", "magic").code == 2
