"""FLUX.2 on the command line, from a folder in the diffusers layout."""

from __future__ import annotations

import json

import pytest

from recast_probe.profiles.profile import AttentionProfile


@pytest.fixture(params=["flux2", "klein"])
def model(request, flux2_folders):
    return flux2_folders[request.param]


@pytest.fixture
def common(model, files, tmp_path):
    image = ("--image", files / "image.png", "--prompt", "fox")
    return ("--model", model, *image, "--steps", 2, "--out", tmp_path)


def test_profile(command, common, files):
    outcome = command("profile", *common, "--mask", files / "mask.png", "--json")
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)["profiles"]
    profile = AttentionProfile.load(row["file"])
    assert profile.dataset.sizes["token"] == 16
    assert profile.provenance["model"]["pipeline"] in ("Flux2Pipeline", "Flux2KleinPipeline")


@pytest.mark.parametrize("method", ["recast", "merge", "none", "reuse"])
def test_generate(command, common, tmp_path, method):
    budget = () if method == "none" else ("--budget", 4)
    outcome = command("generate", *common, "--method", method, *budget, "--json")
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)["images"]
    assert list(tmp_path.glob(f"{method}-*-seed0.png"))
    # step 0 has all 16 tokens
    assert row["mean_budget"] == (0 if method == "none" else 10)


def test_several_references(command, common, files, tmp_path):
    more = ("--image", files / "image.png")
    outcome = command("profile", *common, *more, "--json")
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)["profiles"]
    assert len(AttentionProfile.load(row["file"]).layout.references) == 2
    outcome = command("generate", *common, *more, "--method", "recast", "--budget", 4, "--json")
    assert outcome.code == 0, outcome.err
    # step 0 has all 32 tokens
    assert json.loads(outcome.out)["images"][0]["mean_budget"] == 18
    outcome = command("generate", *common, *more, "--mask", files / "mask.png")
    assert outcome.code == 2
    assert "drawn on one reference, but 2 images" in outcome.err


def test_bound(command, model):
    outcome = command("bound", "--model", model, "--tokens", "48,16,16", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["bounds"]["no reference"]["speed_up"] > 1
    dev = json.loads(command("bound", "--model", "flux2-dev", "--json").out)
    assert dev["parameters"] == 32_223_281_152
    assert dev["full_step"]["total"] / 1e12 == pytest.approx(582.78, abs=5e-3)
