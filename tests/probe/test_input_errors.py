"""Everything a user can get wrong is said before anything runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.experiments.attribution import attribution, with_latents
from recast_probe.probe import Probe
from recast_probe.testing import tiny


@pytest.fixture(autouse=True)
def nothing_runs(pipeline):
    """The transformer must not be called in these tests."""

    def fail(*_):
        raise AssertionError("the transformer was called")

    hook = pipeline.transformer.register_forward_pre_hook(fail)
    yield
    hook.remove()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": []}, "list of prompts is empty"),
        ({"prompt": 3}, "must be a text or a list of texts"),
        ({"prompt": ["fox", None]}, "must be a text or a list of texts"),
        ({"steps": 0}, "steps must be a whole number of at least 1, not 0"),
        ({"steps": -3}, "steps"),
        ({"steps": 2.5}, "not 2.5"),
        ({"steps": True}, "not True"),
        ({"seed": -1}, "seed"),
        ({"seed": "today"}, "seed"),
        ({"blocks": "middle"}, "middle"),
        ({"blocks": 5}, "5"),
        ({"blocks": "single.3"}, "single.3"),
        ({"profile_steps": 4}, "profile_steps holds 4.* 0-3"),
        ({"profile_steps": []}, "selects nothing"),
        ({"profile_steps": [-1]}, "profile_steps"),
        ({"profile_steps": 1.5}, "not 1.5"),
        ({"heads": 2}, "heads holds 2"),
        ({"heads": []}, "selects nothing"),
        ({"mass_table": "some"}, "mass_table"),
        ({"colour": "red"}, "takes no argument 'colour'. It takes"),
        ({"num_inference_steps": 3}, "num_inference_steps=3"),
        ({"generator": None, "latents": 1, "output_type": "latent"}, "'output_type' is set"),
        ({"sigmas": [1.0, 0.5]}, "sigmas has 2 entries, but steps=4"),
        ({"height": 0}, "height"),
        ({"height": 4, "width": 4000}, "generation tokens"),
        ({"image": 3}, "PIL image or the path"),
        ({"image": None}, "no reference tokens"),
        ({"image": "nowhere.png"}, "no file 'nowhere.png'"),
        ({"image": Image.new("RGB", (8, 300)), "_auto_resize": False}, "smaller than one token"),
        ({"image": "https://example.com/fox.png"}, "'https://example.com/fox.png'.*download it"),
        ({"image": Path("https://example.com/fox.png")}, "download it"),
        ({"image": "S3://bucket/fox.png"}, "'S3://bucket/fox.png'.*download it"),
        ({"image": "file:///tmp/fox.png"}, "download it"),
        ({"image": ["hf://a/fox.png"]}, "download it"),
        ({"image": "C:/nowhere/fox.png"}, "no file"),
        ({"image": "a" * 5000 + ".png"}, "The reference image"),
        ({"image": "nul\0.png"}, "The reference image"),
        ({"image": np.zeros((8, 9, 3))}, r"shape \(8, 9, 3\).*Image.fromarray"),
        ({"image": torch.zeros(3, 8, 9)}, r"shape \(3, 8, 9\).*Image.fromarray"),
        ({"image": [np.zeros((8, 9))]}, "Image.fromarray"),
        ({"prompt": None}, "Give a prompt"),
        ({"prompt": "a \ud83d fox"}, r"'\\ud83d' at 2"),
        ({"prompt": ["fox", "\udfff"]}, r"'\\udfff' at 0"),
        ({"negative_prompt": "\udc00"}, r"negative_prompt holds '\\udc00'"),
        ({"prompt_2": 3}, "prompt_2 must be a text"),
        ({"prompt_2": ["a", "b"]}, "prompt_2 has 2 texts for 1 prompts"),
        ({"negative_prompt": ["a"], "prompt": ["a", "b"]}, "negative_prompt has 1 texts for 2"),
        ({"negative_prompt": b"snow"}, "negative_prompt must be a text"),
        ({"steps": 1001}, "steps=1001 is more than the 1000"),
        ({"steps": 10**9}, "at most 1000"),
        ({"sigmas": 0.5}, "sigmas must be a list"),
        ({"sigmas": [1.0, float("nan"), 0.5, 0.2]}, "FlowMatchEulerDiscreteScheduler.*not finite"),
        ({"sigmas": ["a", "b", "c", "d"]}, "FlowMatchEulerDiscreteScheduler makes no run"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be a finite number, not nan"),
        ({"guidance_scale": "3"}, "guidance_scale must be a finite number, not '3'"),
        ({"true_cfg_scale": float("inf")}, "true_cfg_scale must be a finite number, not inf"),
        ({"true_cfg_scale": True}, "true_cfg_scale"),
        ({"max_sequence_length": 513}, "max_sequence_length=513 is beyond the 512"),
        ({"max_sequence_length": 0}, "max_sequence_length"),
        ({"max_sequence_length": 12.5}, "max_sequence_length"),
        ({"num_images_per_prompt": 2}, "several calls with different seeds"),
        ({"callback_on_step_end": 3}, "callback_on_step_end must be a function, not 3"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "'noise'.*latents, prompt_embeds"),
        ({"callback_on_step_end_tensor_inputs": "latents"}, "'latents'"),
        ({"joint_attention_kwargs": [1]}, "joint_attention_kwargs must be a dictionary"),
        ({"ip_adapter_image": Image.new("RGB", (8, 8))}, "ip_adapter_image needs an IP-Adapter"),
    ],
)
def test_wrong_arguments(probe, image, settings, message):
    arguments = {"image": image, "prompt": "fox", "steps": 4, "progress": False, **settings}
    with pytest.raises(InputError, match=message):
        probe.profile(**arguments)


def test_images_that_cannot_be_read(probe, image, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("not an image")
    with pytest.raises(InputError, match="cannot be read as an image"):
        probe.profile(text, "fox")
    image.save(tmp_path / "whole.png")
    cut = tmp_path / "cut.png"
    cut.write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    with pytest.raises(InputError, match=r"cut\.png"):
        probe.profile(cut, "fox")
    with pytest.raises(InputError, match="no file"):
        probe.profile(tmp_path, "fox")


def test_interventions_must_be_interventions(probe, image):
    with pytest.raises(InputError, match="not an intervention"):
        probe.generate(image, "fox", interventions=["prune"])


def test_a_mask_of_another_shape(probe):
    image = tiny.tiny_image(96, 64)
    with pytest.raises(InputError, match=r"64 x 96 pixels and the image 96 x 64"):
        probe.reference_mask(Image.new("L", (64, 96), 255), image)
    with pytest.raises(InputError, match="two-dimensional"):
        probe.reference_mask(np.ones((4, 4, 3)), image)
    with pytest.raises(InputError, match="not finite"):
        probe.reference_mask(np.full((64, 96), np.nan), image)


@pytest.mark.parametrize("name", ["black-forest-labs/FLUX.1-Kontext-dev", Path("a/folder")])
def test_the_name_of_a_model_is_no_pipeline(name):
    for call in (Probe, accelerate):
        with pytest.raises(InputError, match=rf"Probe\.from_pretrained\('{name}'\)"):
            call(name)


def test_a_scheduler_of_more_timesteps_takes_more_steps(probe, image):
    before = probe.pipe.scheduler
    probe.pipe.scheduler = type(before).from_config(before.config, num_train_timesteps=1200)
    try:
        assert len(probe.pipeline_arguments(image, "fox", steps=1100)) > 1
        with pytest.raises(InputError, match="steps=1201 is more than the 1200"):
            probe.pipeline_arguments(image, "fox", steps=1201)
    finally:
        probe.pipe.scheduler = before


@pytest.mark.parametrize("name", ["callback_on_step_end", "callback_on_step_end_tensor_inputs"])
def test_studies_that_need_the_callback_themselves(probe, image, name):
    given = {"callback_on_step_end": lambda *_: {}, "callback_on_step_end_tensor_inputs": []}
    with pytest.raises(InputError, match=f"{name} is used here"):
        attribution(probe, image, "fox", steps=2, progress=False, **{name: given[name]})
    with pytest.raises(InputError, match=f"{name} is used here"):
        with_latents(probe, image, "fox", 2, 0, (), **{name: given[name]})


class OtherPipeline:
    pass


def test_other_pipelines_are_named_with_what_is_supported():
    with pytest.raises(UnsupportedPipelineError, match=r"OtherPipeline.*FluxKontextPipeline"):
        Probe(OtherPipeline())
    with pytest.raises(TypeError):
        Probe(OtherPipeline())


def test_a_processor_that_cannot_be_traced():
    from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor

    pipe = tiny.build_tiny_pipeline()
    block = pipe.transformer.transformer_blocks[1]
    block.attn.set_processor(FluxIPAdapterAttnProcessor(hidden_size=32, cross_attention_dim=8))
    with pytest.raises(UnsupportedPipelineError, match=r"transformer_blocks\.1\.attn.*unload_ip"):
        Probe(pipe)


def test_a_compiled_transformer():
    pipe = tiny.build_tiny_pipeline()
    pipe.transformer.transformer_blocks[0].compile()
    with pytest.raises(UnsupportedPipelineError, match="before compiling"):
        Probe(pipe)


def test_a_pipeline_without_a_part():
    pipe = tiny.build_tiny_pipeline()
    pipe.vae = None
    with pytest.raises(UnsupportedPipelineError, match="vae"):
        Probe(pipe)


def test_a_mask_that_differs_between_queries_is_refused(image):
    """joint_attention_kwargs can carry a mask into attention."""
    pipe, length = tiny.build_tiny_pipeline(), tiny.TEXT_TOKENS + 32
    mask = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    with pytest.raises(UnsupportedPipelineError, match="mask"):
        Probe(pipe).profile(
            image,
            "fox",
            steps=1,
            progress=False,
            joint_attention_kwargs={"attention_mask": mask},
        )
