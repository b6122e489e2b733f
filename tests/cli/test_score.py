"""`recast-probe score`: numbers of an image and its reference, a prompt, or two folders."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from recast_probe import metrics
from tests import tiny_metrics
from tests.cli.test_bad_input import refused


@pytest.fixture
def pair(tmp_path):
    """Two pictures with masks in a folder."""
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        values = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(values).resize((48, 48), Image.Resampling.BICUBIC)
        picture.save(tmp_path / f"{name}.png")
    for name, where in (("a", slice(8, 24)), ("b", slice(20, 40))):
        mask = np.zeros((48, 48), np.uint8)
        mask[where, where] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}-mask.png")
    return tmp_path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return tiny_metrics.save_dinov2(folder / "dino"), tiny_metrics.save_clip(folder / "clip")


def options(pair, *names: str) -> list[object]:
    files = {"--image": "a", "--reference": "b", "--mask": "a-mask"}
    files |= {"--reference-mask": "b-mask"}
    return [part for name in names for part in (name, pair / f"{files[name]}.png")]


def test_numbers_are_those_of_the_library(command, pair, weights):
    dino, clip = weights
    named = f"dinov2={dino},dinov2-whole={dino},clip-t={clip},ssim,colour"
    outcome = command(
        *("score", *options(pair, "--image", "--reference", "--mask", "--reference-mask")),
        *("--prompt", "a fox", "--metrics", named, "--json"),
    )
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    images = [Image.open(pair / f"{name}.png") for name in "ab"]
    masks = [np.asarray(Image.open(pair / f"{name}-mask.png")) > 127 for name in "ab"]
    made = {each.name: each for each in metrics.metrics_of(named)}
    wanted = {
        name: made[name].score(images[0], masks[0], images[1], masks[1])
        for name in ("dinov2", "dinov2-whole", "ssim", "colour")
    }
    wanted["clip-t"] = made["clip-t"].score_text(images[0], "a fox")
    assert found["scores"] == pytest.approx(wanted, abs=1e-6)
    assert [each["metric"] for each in found["metrics"]] == list(made)


def test_without_names_the_bundled_scores_are_given(command, pair):
    outcome = command("score", *options(pair, "--image", "--reference"))
    assert [line.split()[0] for line in outcome.out.splitlines()] == ["mobilenet", "colour"]
    same = command("score", "--image", pair / "a.png", "--reference", pair / "a.png", "--json")
    assert json.loads(same.out)["scores"] == pytest.approx({"mobilenet": 1, "colour": 1}, abs=1e-5)


def test_folders_are_compared_as_sets(command, tmp_path):
    random = np.random.default_rng(0)
    for folder, brightness in (("a", 0), ("b", 100)):
        (tmp_path / folder).mkdir()
        for number in range(4):
            values = random.integers(0, 156, (16, 16, 3), dtype=np.uint8) + brightness
            Image.fromarray(values.astype(np.uint8)).save(tmp_path / folder / f"{number}.png")
        (tmp_path / folder / "notes.txt").write_text("no picture")
    both = ("--image", tmp_path / "a", "--reference", tmp_path / "b")
    outcome = command("score", *both, "--metrics", "kid,rfid", "--json")
    found = json.loads(outcome.out)["scores"]
    sets = [[Image.open(path) for path in sorted((tmp_path / name).glob("*.png"))] for name in "ab"]
    assert found["kid"] == pytest.approx(metrics.metric("kid").distance(*sets), abs=1e-9)
    assert "rfid of 4 images with 1280 features" in outcome.err
    assert "kid" in command("score", *both).out
    refused(command("score", *both, "--metrics", "colour"), "colour compares two images")
    refused(command("score", *both, "--prompt", "a"), "whole images")
    refused(command("score", "--image", tmp_path / "a"), "is a folder")


def test_a_picture_without_a_face_has_no_score(command, pair, tmp_path):
    folder = tiny_metrics.save_auraface(tmp_path / "auraface")
    Image.new("RGB", (48, 48), "grey").save(pair / "a.png")
    outcome = command(
        *("score", *options(pair, "--image", "--reference")),
        *("--metrics", f"auraface={folder}", "--json"),
    )
    assert outcome.code == 0
    assert json.loads(outcome.out)["scores"] == {"auraface": None}
    assert "no face in the image" in outcome.err


def test_what_is_missing_is_said(command, pair, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    image, both = options(pair, "--image"), options(pair, "--image", "--reference")
    refused(command("score", *both, "--metrics", "dino"), "no metric 'dino'", "dinov2")
    refused(command("score", *both, "--metrics", ","), "names no metric")
    refused(command("score", *both, "--metrics", "kid"), "kid compares sets", "folders")
    refused(command("score", *image), "--reference")
    refused(command("score", *both, "--metrics", f"dinov2={pair}"), "lacks config.json")
    refused(
        command("score", *both, "--metrics", "dinov2=nobody/nothing"),
        "model.safetensors",
        "hf download nobody/nothing",
    )
    missing = options(pair, "--reference-mask")
    refused(command("score", *image, *missing, "--metrics", "colour"), "--reference")


def test_a_text_metric_needs_a_prompt(command, pair, weights):
    named = f"clip-t={weights[1]}"
    refused(command("score", *options(pair, "--image"), "--metrics", named), "--prompt")
    outcome = command(
        *("score", *options(pair, "--image"), "--metrics", named, "--prompt", "a fox", "--json")
    )
    assert list(json.loads(outcome.out)["scores"]) == ["clip-t"]


def test_masks_are_checked(command, pair):
    Image.new("L", (48, 24), 255).save(pair / "wide.png")
    Image.new("L", (48, 48), 0).save(pair / "empty.png")
    both = options(pair, "--image", "--reference")
    refused(command("score", *both, "--mask", pair / "wide.png"), "aspect")
    refused(command("score", *both, "--mask", pair / "empty.png"), "no pixel")


def test_doctor_says_what_every_metric_needs(command, monkeypatch, tmp_path):
    monkeypatch.setattr("recast_probe.metrics.registry.is_installed", lambda name: name != "lpips")
    found = json.loads(command("doctor", "--json").out)["metrics"]
    assert found["mobilenet"] == found["ssim"] == found["kid"] == "ready"
    assert found["lpips"].startswith("needs the package lpips: pip install")
    for name in ("dinov2", "clip-i", "clip-t", "auraface"):
        assert found[name] == "ready" or f"--metrics {name}=FOLDER" in found[name]
