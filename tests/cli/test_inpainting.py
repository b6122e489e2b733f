"""A pipeline that repaints a part of its image, on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from recast_probe.probe import Probe
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.testing import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inpaint")
    tiny.build_inpaint_pipeline().save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture
def common(model, files, tmp_path):
    tiny.tiny_mask().save(files / "repaint.png")
    image = ("--image", files / "image.png", "--prompt", "a fox", "--steps", 3, "--seed", 5)
    return ("--model", model, *image, "--out", tmp_path / "out", "--json")


def expected(model, **settings):
    call = {"steps": 3, "seed": 5, "mask_image": tiny.tiny_mask(), **settings}
    return Probe.from_pretrained(model).generate(tiny.tiny_image(), "a fox", **call)


def test_profile(command, common, model, files):
    masks = ("--mask-image", files / "repaint.png", "--mask", files / "mask.png")
    outcome = command("profile", *common, *masks)
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)["profiles"]
    assert "overlap" in row
    score = AttentionProfile.load(row["file"]).dataset["score"]
    np.testing.assert_array_equal(
        score, expected(model, profile=True).profile.dataset["score"].values
    )


@pytest.mark.parametrize("method", ["full", "mask-oracle"])
def test_generate(command, common, model, files, method):
    budget = () if method == "full" else ("--budget", 4)
    masks = ("--mask-image", files / "repaint.png", "--mask", files / "mask.png")
    outcome = command("generate", *common, *masks, "--method", method, *budget)
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)["images"]
    assert row["mean_budget"] == (16 if method == "full" else 8)
    with Image.open(row["file"]) as image:
        same = np.array_equal(np.asarray(image), np.asarray(expected(model).image))
    assert same == (method == "full")


@pytest.mark.parametrize("kind", ["profile", "generate"])
def test_a_mask_that_does_not_say_its_inside(command, common, files, kind):
    labels = np.asarray(tiny.tiny_mask()) // 255 * 15
    Image.fromarray(labels.astype(np.uint8)).save(files / "labels.png")
    mask = ("--mask-image", files / "labels.png")
    outcome = command(kind, *common, *mask)
    assert outcome.code == 2
    assert "labels.png" in outcome.message
    assert "--mask-inside" in outcome.message
    outcome = command(kind, *common, *mask, "--mask-inside", 15)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("kind", ["profile", "generate"])
def test_one_that_is_missing_or_of_no_use_is_refused(command, common, files, tiny_folder, kind):
    outcome = command(kind, *common)
    assert outcome.code == 2
    assert "needs mask_image" in outcome.message
    outcome = command(kind, *common, "--mask-image", files / "nowhere.png")
    assert outcome.code == 2
    assert "nowhere.png" in outcome.message
    other = ("--model", tiny_folder, *common[2:])
    outcome = command(kind, *other, "--mask-image", files / "repaint.png")
    assert outcome.code == 2
    assert "FluxKontextPipeline takes no argument 'mask_image'" in outcome.message
