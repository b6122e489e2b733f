"""Loading from folders and the hub, and telling models apart."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from recast_probe._utils.provenance import model_name
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.pipelines.run_identity import model_fingerprint
from recast_probe.probe import Probe
from recast_probe.testing import tiny


def test_a_folder_is_loaded_as_it_is_stored(tiny_folder, pipeline):
    probe = Probe.from_pretrained(tiny_folder)
    assert probe.name == tiny_folder.name
    assert probe.fingerprint == model_fingerprint(pipeline)
    assert probe.pipe.transformer.dtype == torch.float32


def test_auto_is_the_dtype_of_the_stored_transformer(tmp_path):
    tiny.build_tiny_pipeline().to(torch.bfloat16).save_pretrained(tmp_path)
    probe = Probe.from_pretrained(tmp_path)
    assert probe.pipe.transformer.dtype == torch.bfloat16
    exact = Probe.from_pretrained(str(tmp_path), dtype="float32")
    assert exact.pipe.vae.dtype == exact.pipe.transformer.dtype == torch.float32
    assert exact.fingerprint != probe.fingerprint


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "float8"}, "'float8' is not known; choose from auto, float32"),
        ({"device": "toaster"}, "toaster"),
    ],
)
def test_unknown_settings(tiny_folder, settings, message):
    with pytest.raises(InputError, match=message):
        Probe.from_pretrained(tiny_folder, **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device(tiny_folder):
    with pytest.raises(InputError, match="no CUDA device"):
        Probe.from_pretrained(tiny_folder, device="cuda")


def test_a_folder_that_holds_no_pipeline(tmp_path):
    with pytest.raises(InputError, match=r"no model_index\.json"):
        Probe.from_pretrained(tmp_path)


def test_a_folder_with_another_pipeline(tmp_path):
    index = {"_class_name": "StableDiffusion3Pipeline"}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedPipelineError, match=r"Diffusion3Pipeline.*FluxKontextPipeline"):
        Probe.from_pretrained(tmp_path)


def test_an_incomplete_folder(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "half")
    for file in (tmp_path / "half" / "transformer").glob("*.safetensors"):
        file.unlink()
    with pytest.raises(InputError, match="transformer"):
        Probe.from_pretrained(tmp_path / "half")


def test_pickled_weights_are_not_loaded(tiny_folder, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_folder, folder)
    for file in (folder / "transformer").glob("*.safetensors"):
        file.rename(file.with_name("diffusion_pytorch_model.bin"))
    with pytest.raises(InputError, match="transformer"):
        Probe.from_pretrained(folder)


def test_a_repository_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as caught:
        Probe.from_pretrained("some-lab/a-gated-model")
    message = str(caught.value)
    for part in ("some-lab/a-gated-model", "licence", "hf auth login", "Probe.pocket()"):
        assert part in message


def test_the_fingerprint_follows_the_weights(tiny_folder):
    probe = Probe.from_pretrained(tiny_folder)
    first = probe.fingerprint
    assert first == probe.fingerprint
    assert len(first) == 64
    weight = probe.pipe.transformer.x_embedder.weight
    with torch.no_grad():
        weight[3, 5] += 1e-3
    changed = probe.fingerprint
    assert changed != first
    with torch.no_grad():
        weight[3, 5] -= 1e-3
        probe.pipe.text_encoder_2.get_input_embeddings().weight.mul_(1.01)
    assert probe.fingerprint not in (first, changed)


def test_names_of_models(pipeline):
    class Fake:
        def __init__(self, path):
            self.config = {"_name_or_path": path}

    cached = "/home/me/.cache/hub/models--black-forest-labs--FLUX.1-Kontext-dev/snapshots/1234"
    assert model_name(Fake(cached)) == "black-forest-labs/FLUX.1-Kontext-dev"
    assert model_name(Fake("/home/me/models/mine")) == "mine"
    assert model_name(Fake("black-forest-labs/FLUX.1-Kontext-dev")).startswith("black-forest-labs/")
    assert model_name(Fake(None)) == "unnamed"
    assert Probe(pipeline, name="mine").name == "mine"


def test_an_offloaded_pipeline(tiny_folder, image):
    """Offloading replaces forward by a hook's wrapper; it must run, and be there afterwards."""
    from accelerate.hooks import ModelHook, add_hook_to_module

    class Counting(ModelHook):
        calls = 0

        def pre_forward(self, module, *arguments, **settings):
            self.calls += 1
            return arguments, settings

    pipe = Probe.from_pretrained(tiny_folder).pipe
    expected = Probe(pipe).generate(image, "fox", steps=2, progress=False)
    hook = Counting()
    add_hook_to_module(pipe.transformer, hook)
    forward = pipe.transformer.__dict__["forward"]
    result = Probe(pipe).generate(image, "fox", steps=2, profile=True, progress=False)
    assert hook.calls == 2
    assert pipe.transformer.__dict__["forward"] is forward
    np.testing.assert_array_equal(np.asarray(result.image), np.asarray(expected.image))
