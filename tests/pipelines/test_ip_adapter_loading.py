"""A FluxPipeline with its IP-Adapter from folders: safetensors alone, and errors that help."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from recast_probe.errors import InputError
from recast_probe.probe import Probe
from recast_probe.testing import tiny_ip_adapter

QUIET = {"steps": 2, "progress": False}


def parts(folders, **others):
    return {"ip_adapter": folders.adapter, "image_encoder": folders.image_encoder, **others}


def test_from_folders_it_is_the_pipeline_that_diffusers_loads(
    adapter_folders, adapter_probe, image
):
    loaded = Probe.from_pretrained(adapter_folders.base, **parts(adapter_folders))
    assert loaded.fingerprint == adapter_probe.fingerprint
    assert loaded.pipe.image_encoder.dtype == torch.float32
    expected = adapter_probe.generate(image, "fox", **QUIET).image
    np.testing.assert_array_equal(
        np.asarray(loaded.generate(image, "fox", **QUIET).image), np.asarray(expected)
    )


def test_a_file_of_another_name(adapter_folders, adapter_probe, tmp_path):
    file = tmp_path / "mine.safetensors"
    shutil.copy(adapter_folders.adapter / tiny_ip_adapter.WEIGHTS, file)
    loaded = Probe.from_pretrained(
        str(adapter_folders.base), **parts(adapter_folders, ip_adapter=str(file))
    )
    assert loaded.fingerprint == adapter_probe.fingerprint


def test_the_encoder_has_the_dtype_of_the_transformer(adapter_folders):
    loaded = Probe.from_pretrained(adapter_folders.base, dtype="bfloat16", **parts(adapter_folders))
    assert loaded.pipe.image_encoder.dtype == loaded.pipe.transformer.dtype == torch.bfloat16


def test_pickles_are_not_read(adapter_folders, tmp_path):
    pickled = tmp_path / "ip_adapter.bin"
    torch.save({}, pickled)
    with pytest.raises(InputError, match="no safetensors file"):
        Probe.from_pretrained(adapter_folders.base, **parts(adapter_folders, ip_adapter=pickled))
    encoder = tmp_path / "encoder"
    shutil.copytree(adapter_folders.image_encoder, encoder)
    weights = encoder / "model.safetensors"
    torch.save(load_file(weights), encoder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(InputError, match=r"image encoder.*could not be loaded"):
        Probe.from_pretrained(adapter_folders.base, **parts(adapter_folders, image_encoder=encoder))


def test_an_adapter_for_another_model(adapter_folders, tmp_path):
    weights = tiny_ip_adapter.adapter_weights()
    for name in list(weights):
        if name.startswith("double_blocks.1"):
            del weights[name]
    save_file(weights, tmp_path / tiny_ip_adapter.WEIGHTS)
    with pytest.raises(InputError, match="number of double-stream blocks"):
        Probe.from_pretrained(adapter_folders.base, **parts(adapter_folders, ip_adapter=tmp_path))


def test_what_is_missing_is_said_before_anything_is_loaded(
    adapter_folders, tiny_folder, tmp_path, monkeypatch
):
    def fail(*_, **__):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", fail)
    with pytest.raises(InputError, match="until an IP-Adapter is loaded into it; give ip_adapter"):
        Probe.from_pretrained(adapter_folders.base)
    with pytest.raises(InputError, match="takes no ip_adapter"):
        Probe.from_pretrained(tiny_folder, **parts(adapter_folders))
    with pytest.raises(InputError, match=r"has no ip_adapter\.safetensors"):
        Probe.from_pretrained(adapter_folders.base, **parts(adapter_folders, ip_adapter=tmp_path))


def test_repositories_that_cannot_be_reached(adapter_folders, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name, message in (("ip_adapter", "IP-Adapter"), ("image_encoder", "image encoder")):
        chosen = parts(adapter_folders, **{name: "some-lab/not-there"})
        with pytest.raises(InputError, match=rf"{message} 'some-lab/not-there'"):
            Probe.from_pretrained(adapter_folders.base, **chosen)
