"""The random-weight FLUX.1 Kontext: its published sizes, and the real commands on a small one."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, T5EncoderModel

from benchmarks import full_size
from recast_probe.cli import main
from recast_probe.errors import InputError
from recast_probe.pipelines.loading import _stored_dtype, load_pipeline
from recast_probe.profiles.profile import AttentionProfile


def count(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_part_has_its_published_parameters():
    with torch.device("meta"):
        transformer = FluxTransformer2DModel.from_config(full_size.transformer_config(1, 4096, 768))
        clip = CLIPTextModel(full_size.clip_config(1, 768))
        t5 = T5EncoderModel(full_size.t5_config(1, 4096))
        vae = AutoencoderKL(**full_size.autoencoder_config(1))
    assert count(transformer) == 11_901_408_320
    assert count(clip) == 123_060_480
    assert count(t5) == 4_762_310_656
    assert count(vae) == 83_819_683


def test_tokenizers_have_as_many_words_and_pad_to_the_published_lengths():
    clip, t5 = full_size.clip_tokenizer(), full_size.t5_tokenizer(512)
    assert (len(clip), len(t5)) == (49_408, 32_100)
    words = clip("a fox", padding="max_length", max_length=77, truncation=True).input_ids
    assert len(words) == 77
    assert (words[0], max(words)) == (49_406, 49_407)
    pieces = t5("A fox!", padding="max_length", max_length=512, truncation=True).input_ids
    assert len(pieces) == 512
    assert t5.unk_token_id not in pieces


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Small, in several files a part."""
    folder = tmp_path_factory.mktemp("full_size")
    full_size.main([str(folder), "--scale", "24", "--device", "cpu", "--shard-size", "1MB"])
    return folder


def test_weights_are_sharded_and_half_precision(folder):
    index = json.loads(
        (folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json").read_text()
    )
    assert len(set(index["weight_map"].values())) > 1
    assert _stored_dtype(folder) == torch.bfloat16
    model = FluxTransformer2DModel.from_pretrained(folder / "transformer")
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("size", [(300, 200), (90, 260)])
def test_the_real_commands_take_a_reference_that_is_not_square(folder, size, tmp_path, capsys):
    image = tmp_path / "reference.png"
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(image)
    shared = ["--model", str(folder), "--image", str(image), "--prompt", "a fox, on Snow!"]
    shared += ["--out", str(tmp_path), "--json"]
    main(["profile", *shared, "--steps", "2"])
    printed = capsys.readouterr()
    assert re.search(r"Peak resident memory in GiB: .*denoising \d", printed.err)
    profile = AttentionProfile.load(json.loads(printed.out)["profiles"][0]["file"])
    grid = profile.layout.references[0]
    assert (grid.rows < grid.columns) == (size[0] > size[1])
    assert profile.provenance["model"]["dtype"] == "bfloat16"
    for method in ("full", "recast", "none"):
        main(["generate", *shared, "--method", method, "--steps", "2"])
        printed = capsys.readouterr()
        assert re.search(r"Peak resident memory in GiB: .*decoding \d", printed.err)
        made = np.asarray(Image.open(json.loads(printed.out)["images"][0]["file"]))
        assert made.std() > 0, "random weights make noise, not one colour"


def test_tied_blocks_are_modules_of_their_own_with_one_storage(tmp_path):
    folder = tmp_path / "tied"
    full_size.main([str(folder), "--scale", "16", "--device", "cpu", "--tied"])
    transformer = load_pipeline(folder).transformer
    blocks = transformer.single_transformer_blocks
    assert len({id(block) for block in blocks}) == len(blocks) == 2
    for first, second in zip(*(block.parameters() for block in blocks), strict=True):
        assert first.data_ptr() == second.data_ptr()
    weights = next((folder / "transformer").glob("*.safetensors"))
    tensors = load_file(weights)
    tensors.pop("transformer_blocks.0.attn.to_q.weight")
    save_file(tensors, weights)
    with pytest.raises(InputError, match=r"lack 1 tensors .* transformer_blocks\.0\.attn\.to_q"):
        load_pipeline(folder)


def test_offloading_needs_a_device_to_offload_from(folder, tmp_path, capsys):
    image = tmp_path / "reference.png"
    Image.new("RGB", (64, 64)).save(image)
    shared = ["--image", str(image), "--prompt", "a fox", "--out", str(tmp_path), "--cpu-offload"]
    for model, message in ((str(folder), "device='cuda'"), ("pocket", "leave --cpu-offload out")):
        with pytest.raises(SystemExit):
            main(["generate", "--model", model, *shared])
        assert message in capsys.readouterr().err
