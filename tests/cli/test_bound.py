"""`recast-probe bound`: the published config, other models and devices, bad input."""

from __future__ import annotations

import json

import pytest

from tests.cli.test_bad_input import refused


def test_the_published_config(command):
    found = json.loads(command("bound", "--device", "h200", "--json").out)
    assert found["parameters"] == 11_901_408_320
    assert found["full_step"]["total"] / 1e12 == pytest.approx(165.46, abs=5e-3)
    bounds = {name: each["speed_up"] for name, each in found["bounds"].items()}
    assert bounds["no reference"] == pytest.approx(2.224, abs=5e-4)
    assert bounds["ReCAST (Eq. 4)"] == pytest.approx(1.887, abs=5e-4)
    assert bounds["reuse with Eq. 4"] == pytest.approx(2.087, abs=5e-4)
    assert found["bounds"]["full"]["least_seconds"] == pytest.approx(4.682, abs=5e-3)
    text = command("bound", "--with", "prune=600", "--with", "reuse", "--with", "fp8").out
    assert "prune=600, reuse, fp8" in text
    assert "3.390x" in text


def test_other_models_devices_and_sizes(command, tiny_folder):
    found = json.loads(
        command(
            *("bound", "--model", tiny_folder, "--tokens", "12,16,16", "--steps", 4, "--json"),
            *("--peak-tflops", 1, "--bandwidth-gb", 100, "--calls", 2),
        ).out
    )
    assert found["tokens"] == {"text": 12, "generation": 16, "reference": 16}
    assert found["bounds"]["full"]["least_seconds"] > 0
    assert "reuse with Eq. 4, 16 steps" not in found["bounds"], "there are only 4 steps"
    assert json.loads(command("bound", "--model", "pocket", "--json").out)["parameters"] == 2848416
    assert "full" in command("bound", "--model", "pocket", "--steps", 1).out


def test_the_config_says_where_it_is_from(command):
    found = json.loads(command("bound", "--model", "longcat-image-edit", "--json").out)
    assert found["parameters"] == 6_270_668_864
    assert found["tokens"] == {"text": 838, "generation": 4096, "reference": 4096}
    assert "meituan-longcat/LongCat-Image" in found["config"]
    assert "Qwen/Qwen-Image-Layered" in command("bound", "--model", "qwen-image-layered").out
    assert json.loads(command("bound", "--model", "pocket", "--json").out)["config"] is None


def test_bad_input(command, tmp_path):
    refused(command("bound", "--model", tmp_path), "No transformer config")
    refused(command("bound", "--tokens", "512,4096"), "such as 512,4096,4096")
    refused(command("bound", "--device", "tpu"), "device table")
    refused(command("bound", "--peak-tflops", "5"), "together")
    refused(command("bound", "--with", "prune=x"), "A budget is")
    refused(command("bound", "--device", "a100", "--with", "fp8"), "8-bit")
