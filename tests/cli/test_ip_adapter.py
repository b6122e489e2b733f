"""A FluxPipeline with an IP-Adapter on the command line."""

from __future__ import annotations

import json

import pytest

from recast_probe.profiles.profile import AttentionProfile


@pytest.fixture
def tiny_adapter(adapter_folders):
    """Options that name the tiny model."""
    return (
        *("--model", adapter_folders.base),
        *("--ip-adapter", adapter_folders.adapter),
        *("--image-encoder", adapter_folders.image_encoder),
    )


@pytest.fixture
def common(files, tmp_path):
    return ("--image", files / "image.png", "--prompt", "fox", "--steps", 2, "--out", tmp_path)


def test_profile_and_diagnose(command, tiny_adapter, common, files, tmp_path):
    outcome = command("profile", *tiny_adapter, *common, "--json")
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)["profiles"]
    assert not AttentionProfile.load(row["file"]).layout.placed
    outcome = command("diagnose", row["file"], "--out", tmp_path / "numbers")
    assert outcome.code == 0, outcome.err
    names = {path.name for path in (tmp_path / "numbers").iterdir()}
    assert {"importance.png", "skew.png", "entropy.png", "report.html"} <= names
    for option in ("--image", "--mask"):
        picture = files / f"{option[2:]}.png"
        outcome = command("diagnose", row["file"], option, picture, "--out", tmp_path / "other")
        assert outcome.code == 2
        assert "no places in the image" in outcome.err
        assert not (tmp_path / "other").exists()


def test_a_mask_is_refused_before_the_run(command, tiny_adapter, common, files, tmp_path):
    outcome = command("profile", *tiny_adapter, *common, "--mask", files / "mask.png")
    assert outcome.code == 2
    assert "no places in the image" in outcome.err
    assert not list(tmp_path.glob("*.nc"))


@pytest.mark.parametrize("method", ["recast", "random", "none"])
def test_generate(command, tiny_adapter, common, tmp_path, method):
    budget = () if method == "none" else ("--budget", 2)
    outcome = command("generate", *tiny_adapter, *common, "--method", method, "--json", *budget)
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)["images"]
    assert (tmp_path / f"{method}-00-seed0.png").is_file()
    # step 0 has all 4 tokens
    assert row["mean_budget"] == (0 if method == "none" else 3)


def test_an_adapter_where_there_should_be_none_or_one(
    command, adapter_folders, tiny_folder, tiny_adapter, common
):
    adapter = ("--ip-adapter", adapter_folders.adapter)
    for model, message in (
        ((), "The bundled model takes no IP-Adapter"),
        (("--model", tiny_folder), "FluxKontextPipeline takes no ip_adapter"),
    ):
        outcome = command("profile", *model, *adapter, *common)
        assert outcome.code == 2
        assert message in outcome.err
    outcome = command("profile", *tiny_adapter[:2], *common)
    assert outcome.code == 2
    assert "no reference tokens until an IP-Adapter is loaded" in outcome.err
