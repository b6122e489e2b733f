"""Qwen-Image-Edit on the command line."""

from __future__ import annotations

import json

import pytest
import transformers
from PIL import Image

from recast_probe.profiles.profile import AttentionProfile
from recast_probe.testing import tiny, tiny_qwen


@pytest.fixture
def common(qwen_folders, tmp_path):
    tiny.tiny_image(90, 60).save(tmp_path / "image.png")
    mask = Image.new("L", (90, 60))
    mask.paste(255, (0, 0, 45, 60))
    mask.save(tmp_path / "mask.png")
    return (
        *("--model", qwen_folders["edit"], "--image", tmp_path / "image.png"),
        *("--prompt", "fox", "--steps", 2, "--out", tmp_path / "out"),
    )


def test_profile_and_diagnose(command, common, tmp_path):
    options = ("--mask", tmp_path / "mask.png", "--negative-prompt", "blurry, dull", "--json")
    outcome = command("profile", *common, *options)
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)["profiles"]
    profile = AttentionProfile.load(row["file"])
    assert list(profile.dataset["branch"].values) == ["conditional", "unconditional"]
    assert profile.layout.to_dict()["references"] == [[6, 9]]
    facts = profile.provenance
    assert facts["model"]["family"] == "qwen-image-edit"
    assert facts["text"]["unconditional"]["vision_tokens"] == "1-6"
    assert facts["arguments"]["true_cfg_scale"] == 4.0
    outcome = command("diagnose", row["file"], "--out", tmp_path / "numbers")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "numbers" / "report.html").is_file()


def test_generate(command, common, tmp_path):
    options = ("--blocks", "all", "--budget", 20, "--json", "--negative-prompt", " ")
    outcome = command("generate", *common, "--method", "recast", *options)
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)["images"]
    assert row["mean_budget"] == 37
    assert list((tmp_path / "out").glob("recast-*-seed0.png"))
    outcome = command("generate", *common, "--method", "merge", *options)
    assert outcome.code == 0, outcome.err
    assert list((tmp_path / "out").glob("merge-*-seed0.png"))


def test_a_missing_package_is_named(command, common, qwen_folders, tmp_path, monkeypatch):
    """transformers needs torchvision for the processor of the published models."""
    broken = tiny_qwen.save_tiny_pipeline(tmp_path / "broken")
    index = broken / "model_index.json"
    index.write_text(
        index.read_text()
        .replace('"recast_probe.testing.tiny_qwen"', '"transformers"')
        .replace('"ImageProcessor"', '"ProcessorThatIsNotThere"')
    )
    monkeypatch.setattr("recast_probe.pipelines.loading.is_installed", lambda name: False)
    assert not hasattr(transformers, "ProcessorThatIsNotThere")
    outcome = command("profile", "--model", broken, *common[2:])
    assert outcome.code == 2
    assert "needs the package torchvision" in outcome.err
