"""What identifies a run: every change of the pipeline shows, and nothing that is none."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
import types

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from recast_probe.content.description import described, metric_identity
from recast_probe.content.digest import NoContent, content_digest
from recast_probe.content.tensor_digest import SMALL, tensor_content
from recast_probe.errors import DamagedFileError, InputError
from recast_probe.files.envelope import digest
from recast_probe.pipelines.run_identity import model_fingerprint, pipeline_identity
from recast_probe.probe import Probe
from recast_probe.studies import Store
from recast_probe.testing import tiny, tiny_flux2, tiny_qwen


def block(pipe):
    return pipe.transformer.single_transformer_blocks[0]


def weight_through_data(pipe):
    block(pipe).attn.to_q.weight.data[3, 5] += 1e-3


def buffer_of_text_encoder(pipe):
    pipe.text_encoder.register_buffer("extra", torch.zeros(2), persistent=False)


def scheduler_shift(pipe):
    config = pipe.scheduler.config
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(config, shift=7.0)


def set_shift(pipe):
    pipe.scheduler.set_shift(7.0)


class Powered(diffusers.FlowMatchEulerDiscreteScheduler):
    def set_power(self, power):
        self.power = power


def own_scheduler(pipe):
    pipe.scheduler = Powered.from_config(pipe.scheduler.config)
    pipe.scheduler.set_power(1.0)


def own_scheduler_set(pipe):
    own_scheduler(pipe)
    pipe.scheduler.set_power(3.0)


def image_processor(pipe):
    pipe.image_processor.register_to_config(do_normalize=False)


def tiling(pipe):
    pipe.vae.enable_tiling()


def method_of_the_pipeline(pipe):
    pipe.encode_prompt = types.MethodType(lambda self, *a: None, pipe)


def other_scheduler(pipe):
    config = pipe.scheduler.config
    pipe.scheduler = diffusers.FlowMatchHeunDiscreteScheduler.from_config(config)


def tokenizer_words(pipe):
    pipe.tokenizer_2.add_tokens(["fox"])


def tokenizer_length(pipe):
    pipe.tokenizer_2.model_max_length = 7


def forward_on_the_instance(pipe):
    own = block(pipe).forward
    block(pipe).forward = lambda *a, **k: own(*a, **k)


def forward_hook(pipe):
    block(pipe).register_forward_hook(lambda module, inputs, output: None)


def another_hook(pipe):
    block(pipe).register_forward_hook(lambda module, inputs, output: output)


def processor(pipe):
    class Mine(type(block(pipe).attn.processor)):
        pass

    block(pipe).attn.set_processor(Mine())


def backend(pipe):
    pipe.transformer.set_attention_backend("_native_math")


def half(pipe):
    pipe.transformer.to(torch.bfloat16)


def vae_scaling(pipe):
    pipe.vae.register_to_config(scaling_factor=0.5)


def training(pipe):
    pipe.text_encoder_2.train()


def attribute(pipe):
    block(pipe).attn.scale = 3.0


CHANGES = (
    weight_through_data,
    buffer_of_text_encoder,
    scheduler_shift,
    set_shift,
    own_scheduler,
    own_scheduler_set,
    image_processor,
    tiling,
    method_of_the_pipeline,
    other_scheduler,
    tokenizer_words,
    tokenizer_length,
    forward_on_the_instance,
    forward_hook,
    another_hook,
    processor,
    backend,
    half,
    vae_scaling,
    training,
    attribute,
)


def test_every_change_of_the_pipeline_is_another_identity():
    found = {"as built": digest(pipeline_identity(tiny.build_tiny_pipeline()))}
    for change in CHANGES:
        pipe = tiny.build_tiny_pipeline()
        change(pipe)
        found[change.__name__] = digest(pipeline_identity(pipe))
    assert len(set(found.values())) == len(CHANGES) + 1


def test_a_swapped_transformer_and_a_weight_put_back():
    pipe = tiny.build_tiny_pipeline()
    first = pipeline_identity(pipe)
    own, pipe.transformer = pipe.transformer, tiny.build_tiny_pipeline(seed=1).transformer
    assert pipeline_identity(pipe)["fingerprint"] != first["fingerprint"]
    pipe.transformer = own
    with torch.no_grad():
        kept = block(pipe).attn.to_v.weight.clone()
        block(pipe).attn.to_v.weight.mul_(2)
        assert model_fingerprint(pipe) != first["fingerprint"]
        block(pipe).attn.to_v.weight.copy_(kept)
    assert pipeline_identity(pipe) == first


@pytest.mark.parametrize("name", ["kontext", "flux2", "qwen"])
def test_runs_leave_the_identity_as_it_was(name):
    pipe = {
        "kontext": tiny.build_tiny_pipeline,
        "flux2": tiny_flux2.build_flux2,
        "qwen": tiny_qwen.build_tiny_pipeline,
    }[name]()
    size = tiny_qwen.SIZE if name == "qwen" else {}
    probe, before = Probe(pipe), pipeline_identity(pipe)
    for attachment in ("nnsight", "hooks"):
        run = probe.generate(
            tiny.tiny_image(), "a", 2, profile=True, attachment=attachment, progress=False, **size
        )
        assert run.provenance["model"]["identity"] == before
    assert pipeline_identity(pipe) == before
    assert pipeline_identity(copy.deepcopy(pipe)) == before


SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)


def two_steps(scheduler):
    scheduler.set_timesteps(2)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    sample = torch.ones(1, 4, 8, 8)
    for time in scheduler.timesteps:
        if hasattr(scheduler, "scale_model_input"):
            sample = scheduler.scale_model_input(sample, time)
        sample = scheduler.step(sample, time, sample)[0]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_steps_leave_the_identity_as_it_was(name):
    pipe = tiny.build_tiny_pipeline()
    pipe.scheduler = getattr(diffusers, name)()
    before = pipeline_identity(pipe)
    two_steps(pipe.scheduler)
    assert pipeline_identity(pipe) == before


def test_another_process_finds_the_same():
    code = (
        "from recast_probe.testing import tiny; from recast_probe.files.envelope import digest; "
        "from recast_probe.pipelines.run_identity import pipeline_identity; "
        "print(digest(pipeline_identity(tiny.build_tiny_pipeline())))"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    here = digest(pipeline_identity(tiny.build_tiny_pipeline()))
    assert run.stdout.split()[-1:] == [here], run.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.bool])
def test_every_bit_of_a_large_tensor_counts(dtype):
    rng = np.random.default_rng(0)
    raw = torch.from_numpy(rng.integers(0, 2, 3 * SMALL + 13, dtype=np.uint8))
    tensor = raw.view(torch.bool) if dtype is torch.bool else raw[: 3 * SMALL + 12].view(dtype)
    before = bytes(tensor_content(tensor)[1])
    for place in [0, raw.numel() - 2, *rng.integers(raw.numel() - 2, size=20)]:
        raw[place] ^= 1
        assert bytes(tensor_content(tensor)[1]) != before
        raw[place] ^= 1
    assert bytes(tensor_content(tensor)[1]) == before
    swapped = torch.cat([tensor[1:], tensor[:1]])
    assert bytes(tensor_content(swapped)[1]) != before
    stretched = torch.stack([tensor, tensor], 1)[:, 0]
    assert bytes(tensor_content(stretched)[1]) == before


def _closing_over(number):
    return lambda image: number


def test_values_are_told_apart_by_content():
    noise = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0))
    values = [
        noise,
        noise + 1,
        noise.numpy(),
        np.zeros(3),
        Image.new("RGB", (4, 4), "red"),
        Image.new("RGB", (4, 4), "blue"),
        _closing_over(1),
        _closing_over(2),
        lambda image: 0,
        lambda image: 1,
        lambda image, scale=2: 1,
        [1, 2],
        [2, 1],
        {"a": 1},
        "1",
        1,
        1.0,
        True,
        None,
    ]
    digests = [content_digest(each) for each in values]
    assert len(set(digests)) == len(values)
    assert digests[0] == content_digest(noise.clone())
    assert digests[6] == content_digest(_closing_over(1))
    assert described({"x": noise})["x"]["sha256"] == digests[0]


def test_what_has_no_content_is_refused_where_results_are_stored():
    running = (each for each in range(3))
    assert described(running)["sha256"] is None
    with pytest.raises(NoContent, match="generator"):
        described({"callback": running}, strict=True)
    with pytest.raises(InputError):
        metric_identity(running)
    assert metric_identity(running, "mine")["name"] == "mine"


def test_a_pipeline_without_content_runs_and_is_not_stored(tmp_path):
    probe = Probe(tiny.build_tiny_pipeline())
    running = (each for each in range(3))
    block(probe.pipe).register_forward_hook(lambda module, inputs, output: running and None)
    run = probe.generate(tiny.tiny_image(), "a", 2, progress=False)
    assert "generator" in run.provenance["model"]["identity"]["parts"]["transformer"]
    with pytest.raises(InputError, match="transformer"):
        probe.identity()


def test_a_class_that_was_patched_shows_and_can_be_put_back(monkeypatch):
    pipe = tiny.build_tiny_pipeline()
    before = pipeline_identity(pipe)
    kind = type(block(pipe).attn.processor)
    own = kind.__call__
    with monkeypatch.context() as patched:
        patched.setattr(kind, "__call__", lambda self, *a, **k: own(self, *a, **k))
        assert pipeline_identity(pipe)["parts"]["transformer"] != before["parts"]["transformer"]
    assert pipeline_identity(pipe) == before


def test_a_weight_on_no_device_is_refused_by_name():
    pipe = tiny.build_tiny_pipeline()
    pipe.vae.to("meta")
    with pytest.raises(InputError, match=r"vae\."):
        model_fingerprint(pipe)


def test_a_study_refuses_runs_of_a_pipeline_that_was_changed_meanwhile(tmp_path):
    probe = Probe(tiny.build_tiny_pipeline())
    store = Store(tmp_path, {"model": probe.name, **probe.identity()})
    run = probe.generate(tiny.tiny_image(), "a", 2, progress=False)
    store.save({"arm": "a"}, {"value": 1}, provenance=run.provenance)
    weight_through_data(probe.pipe)
    other = probe.generate(tiny.tiny_image(), "a", 2, progress=False)
    with pytest.raises(InputError, match="fingerprint"):
        store.save({"arm": "b"}, {"value": 1}, provenance=other.provenance)
    assert store.load({"arm": "a"}) is not None
    assert store.load({"arm": "b"}) is None
    with pytest.raises(InputError, match="fingerprint"):
        Store(tmp_path, {"model": probe.name, **probe.identity()})


def test_offloaded_and_plain_weights_are_the_same_model():
    from accelerate import cpu_offload

    pipe = tiny.build_tiny_pipeline()
    before = model_fingerprint(pipe)
    cpu_offload(pipe.transformer, "cpu")
    assert any(each.is_meta for each in pipe.transformer.parameters())
    assert model_fingerprint(pipe) == before


def test_an_adapter_counts_by_its_scale():
    """As peft's layers: a dictionary of scales, the names in use, and a switch."""
    digests = []
    for scale, off in ((1.0, False), (0.3, False), (0.3, True)):
        pipe = tiny.build_tiny_pipeline()
        layer = types.SimpleNamespace(scaling={"a": scale}, active=["a"], off=off)
        module = block(pipe).attn.to_q
        module.scaling, module.active_adapters = layer.scaling, layer.active
        module.disable_adapters = layer.off
        digests.append(pipeline_identity(pipe)["adapters"]["transformer"]["a"])
    assert digests == [[1.0], [0.3], ["off"]]


def test_the_shipped_model_is_checked(tmp_path, monkeypatch):
    from recast_probe import pocket

    folder = shutil.copytree(pocket.folder(), tmp_path / "model")
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)
    monkeypatch.setattr(pocket, "folder", lambda: folder)
    with pytest.raises(DamagedFileError, match="vae"):
        pocket.load()


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "text_encoder_2"])
@pytest.mark.parametrize("fault", ["missing", "misnamed", "cut short"])
def test_missing_weights_are_refused_by_name(tiny_folder, tmp_path, part, fault):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    file = next((folder / part).glob("*.safetensors"))
    tensors = load_file(file)
    name = next(each for each in sorted(tensors) if each.endswith("weight"))
    if fault == "cut short":
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(InputError, match=part):
            Probe.from_pretrained(folder)
        return
    kept = tensors.pop(name)
    if fault == "misnamed":
        tensors[name.replace("weight", "weighu")] = kept
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(InputError, match=name.rsplit(".", 2)[-2]):
        Probe.from_pretrained(folder)
