"""`--model tiny:FAMILY` on the command line."""

from __future__ import annotations

import json

import pytest

from recast_probe.testing import tiny, tiny_fibo
from recast_probe.testing.tiny_pipelines import TINY
from tests.cli.test_bad_input import refused

REPAINTING = [name for name in TINY if name.endswith("-inpaint")]
SMALL_VIDEO = ("--height", 64, "--width", 64, "--num-frames", 9, "--frame-index", 8)


@pytest.fixture
def common(files, tmp_path):
    tiny.tiny_mask().save(files / "repainted.png")
    return (
        *("--image", files / "image.png", "--prompt", "fox", "--steps", 2, "--json"),
        *("--out", tmp_path / "out"),
    )


def repainted(name, files):
    if name == "ltx-condition":
        return SMALL_VIDEO
    if name == "bria-fibo-edit":
        return ("--height", 64, "--width", 64)
    return ("--mask-image", files / "repainted.png") if name in REPAINTING else ()


@pytest.mark.parametrize("name", TINY)
def test_profile(command, common, files, name):
    if name == "bria-fibo-edit":  # its prompts are JSON
        common = [tiny_fibo.edit("fox") if each == "fox" else each for each in common]
    found = command("profile", "--model", f"tiny:{name}", *common, *repainted(name, files))
    assert found.code == 0, found.err
    assert json.loads(found.out)["model"] == f"tiny:{name}"


@pytest.mark.parametrize("name", ["flux2-klein", "qwen-image-edit", "ltx-condition", *REPAINTING])
def test_generate(command, common, files, name):
    options = ("--method", "recast", "--budget", 4, *repainted(name, files))
    found = command("generate", "--model", f"tiny:{name}", *options, *common)
    assert found.code == 0, found.err
    made = json.loads(found.out)
    assert made["model"] == f"tiny:{name}"
    assert made["images"][0]["mean_budget"] > 4, "step 0 has all tokens"


def test_the_mask_of_an_oracle_lies_on_the_repainted_reference(command, common, files):
    options = ("--method", "mask-oracle", "--budget", 4, "--mask", files / "mask.png")
    model = ("--model", "tiny:flux-kontext-inpaint")
    found = command("generate", *model, *options, *repainted(REPAINTING[0], files), *common)
    assert found.code == 0, found.err
    again = (*common, "--overwrite")
    refused(command("generate", *model, *options, *again), "needs mask_image")
    other = ("--model", "tiny:flux-kontext", "--mask-image", files / "repainted.png")
    refused(command("profile", *other, *again), "mask_image")


def test_the_demo_on_a_model_without_single_stream_blocks(command, tmp_path):
    few = ("--references", 1, "--prompts", 2, "--steps", 2, "--json")
    found = command("demo", "--model", "tiny:qwen-image-edit", *few, "--out", tmp_path)
    assert found.code == 0, found.err
    summary = json.loads(found.out)
    assert summary["model"] == "tiny:qwen-image-edit"
    assert "blocks 0-2" in summary["selection"]


def test_bound_and_evaluation(command):
    found = json.loads(command("bound", "--model", "tiny:qwen-image-edit", "--json").out)
    assert 0 < found["parameters"] < 10**6
    few = ("--subjects", 2, "--steps", 2, "--json")
    found = command("pocket", "evaluate", "--model", "tiny:flux-kontext", *few)
    assert found.code == 0, found.err
    assert json.loads(found.out)["subjects"] == 2
    refused(command("pocket", "evaluate", "--model", "tiny:flux2", *few), "Flux2Pipeline")


def test_what_tiny_models_do_not_have(command, common):
    model = ("profile", "--model", "tiny:flux2", *common)
    refused(command(*model, "--device", "cuda"), "tiny:flux2", "'cuda'")
    refused(command(*model, "--dtype", "bfloat16"), "tiny:flux2", "'bfloat16'")
    refused(command(*model, "--cpu-offload"), "tiny:flux2", "--cpu-offload")
    refused(command(*model, "--ip-adapter", "x"), "tiny:flux2", "IP-Adapter")
    refused(command("profile", "--model", "tiny:nope", *common), "'nope'", *TINY)


def test_doctor_lists_them(command):
    found = json.loads(command("doctor", "--json").out)["tiny_models"]
    assert found == [f"tiny:{name}" for name in TINY]
