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
    assert list(tmp_path.glob(f"{method}-*-seed0.png"))
    # step 0 has all 4 tokens
    assert row["mean_budget"] == (0 if method == "none" else 3)


def test_an_adapter_where_there_should_be_none_or_one(
    command, adapter_folders, tiny_folder, tiny_adapter, common
):
    adapter = ("--ip-adapter", adapter_folders.adapter)
    for model, message in (
        ((), "The bundled model has one IP-Adapter"),
        (("--model", tiny_folder), "FluxKontextPipeline takes no ip_adapter"),
    ):
        outcome = command("profile", *model, *adapter, *common)
        assert outcome.code == 2
        assert message in outcome.err
    outcome = command("profile", *tiny_adapter[:2], *common)
    assert outcome.code == 2
    assert "no reference tokens until an IP-Adapter is loaded" in outcome.err


def test_pockets_own_adapter(command, common, tmp_path):
    outcome = command("profile", "--ip-adapter", "pocket", *common, "--json")
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)["profiles"]
    assert AttentionProfile.load(row["file"]).layout.reference_tokens == 128
    for given in (
        ("--ip-adapter", "other"),
        ("--ip-adapter", "pocket", "--image-encoder", "other"),
    ):
        outcome = command("profile", *given, *common, "--overwrite")
        assert outcome.code == 2
        assert "'other'" in outcome.err
        assert "--ip-adapter pocket" in outcome.err


def test_an_evaluation_through_an_adapter(command, monkeypatch):
    from recast_probe.pocket import evaluate

    scales = []

    def found(pipeline, **settings):
        (block, _) = pipeline.transformer.transformer_blocks
        scales.append(block.attn.processor.scale)
        return evaluate.Evaluation({}, {}, 0.5, {}, "middle", 5, 2, 0, 1.0, 1.0)

    monkeypatch.setattr(evaluate, "evaluate", found)
    asked = ("pocket", "evaluate", "--ip-adapter", "pocket", "--json")
    summary = json.loads(command(*asked, "--ip-adapter-scale", "0.5").out)
    assert summary["ip_adapter_scale"] == 0.5
    assert json.loads(command(*asked).out)["ip_adapter_scale"] == 1.0
    assert scales == [[0.5], [1.0]]
    outcome = command("pocket", "evaluate", "--ip-adapter-scale", "0.5")
    assert outcome.code == 2
    assert "--ip-adapter-scale 0.5" in outcome.err


def test_training_of_an_adapter(command, tmp_path, monkeypatch):
    from recast_probe.pocket.adapter import train

    called = {}
    monkeypatch.setattr(
        train,
        "train_adapter",
        lambda pack, base, out, plan, **settings: (
            called.update(settings, plan=plan) or {"steps": 1}
        ),
    )
    asked = ("--pack", "p.npz", "--out", tmp_path, "--rate", 2, "--minutes", 3)
    asked += ("--samples", 640, "--precision", "bfloat16", "--json")
    outcome = command("pocket", "train-adapter", *asked)
    assert json.loads(outcome.out) == {"steps": 1, "adapter": str(tmp_path / "adapter")}
    assert called["plan"] == train.standard_plan(640, 0, 2.0)
    assert (str(called["precision"]), called["minutes"]) == ("torch.bfloat16", 3)
