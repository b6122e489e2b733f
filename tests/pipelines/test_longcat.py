"""LongCat-Image-Edit's family: what it predicts is what the pipeline does, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recast_probe.errors import InputError
from recast_probe.interventions import Keep
from recast_probe.layout import Grid
from recast_probe.pipelines.loading import load_pipeline
from recast_probe.probe import Probe
from recast_probe.testing import tiny, tiny_longcat, tiny_qwen

NEGATIVE = "blurry, of low quality"


class SeenError(Exception):
    """A part of the pipeline was called."""


@pytest.fixture(scope="module")
def probe():
    pipe = tiny_longcat.build_tiny_pipeline()
    tiny_qwen.remember_encoded(pipe.vae)
    return Probe(pipe)


def first_inputs(probe, part, image, prompt="fox", **settings):
    """What a part of the pipeline is given when it is first called."""
    found = {}

    def stop(module, positional, inputs):
        found.update(inputs)
        raise SeenError

    arguments = probe.pipeline_arguments(image, prompt, **settings)
    hook = getattr(probe.pipe, part).register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with pytest.raises(SeenError):
            probe.pipe(**arguments)
    finally:
        hook.remove()
    return found, arguments


@pytest.mark.parametrize(
    ("size", "grid"), [((64, 64), (8, 8)), ((96, 64), (6, 9)), ((31, 90), (13, 4))]
)
def test_the_predicted_layout_is_the_observed_one(probe, size, grid):
    image = tiny.tiny_image(*size)
    inputs, _ = first_inputs(probe, "transformer", image, "a red fox")
    predicted = probe.layout(image, "a red fox")
    assert probe.family.observed_layout(inputs) == predicted
    assert predicted.generation == Grid(*grid)
    assert predicted.references == (predicted.generation,)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("prompt", ["a red fox", "write 'on \"it' now", "", "the fox's den"])
def test_text_tokens_are_what_the_text_encoder_reads(probe, monkeypatch, prompt, side):
    monkeypatch.setattr(probe.pipe.tokenizer, "padding_side", side)
    image = tiny.tiny_image(128, 32)
    read, arguments = first_inputs(probe, "text_encoder", image, prompt)
    ids = probe.family.branch_ids(arguments)["conditional"]
    padding = probe.family.padding_tokens(arguments)["conditional"][0]
    vision = probe.family.vision_tokens(arguments)["conditional"][0]
    # the transformer is not given what stands before the picture and after the prompt
    whole, mask = read["input_ids"][0].numpy(), read["attention_mask"][0].numpy()
    suffix = len(probe.pipe.tokenizer(probe.pipe.prompt_template_encode_suffix)["input_ids"])
    start = len(whole) - suffix - len(ids)
    np.testing.assert_array_equal(ids, whole[start:-suffix])
    np.testing.assert_array_equal(padding, mask[start:-suffix] == 0)
    tokens = probe.pipe.tokenizer.convert_ids_to_tokens(ids[: vision.sum() + 2].tolist())
    assert tokens[0] == "<|vision_start|>"
    assert set(tokens[1:-1]) == {"<|image_pad|>"}
    assert len(tokens) + tiny_longcat.PROMPT_TOKENS == len(ids) == probe.layout(image, prompt).text


def test_what_is_quoted_is_read_letter_by_letter(probe):
    image = tiny.tiny_image()

    def words(prompt):
        arguments = probe.pipeline_arguments(image, prompt)
        return (~probe.family.padding_tokens(arguments)["conditional"]).sum()

    assert words("input") < words('"input"') - 4


def test_guidance_has_the_empty_negative_prompt(probe):
    image = tiny.tiny_image()
    family, settings = probe.family, {"guidance_scale": 3.0}
    plain = probe.pipeline_arguments(image, "fox", **settings)
    assert plain["negative_prompt"] == ""
    assert family.branch_names(plain) == ("conditional", "unconditional")
    assert family.padding_tokens(plain)["unconditional"].sum() == tiny_longcat.PROMPT_TOKENS
    given = probe.pipeline_arguments(image, "fox", negative_prompt=NEGATIVE, **settings)
    embeddings = family.branch_embeddings(given)
    empty = family.branch_embeddings(plain)["unconditional"]
    assert not torch.equal(embeddings["unconditional"], empty)
    # the default of the pipeline, and what the distilled models run with
    assert family.branch_names(probe.pipeline_arguments(image, "fox")) == tuple(embeddings)
    distilled = probe.pipeline_arguments(image, "fox", guidance_scale=1.0)
    assert family.branch_names(distilled) == ("conditional",)
    assert "negative_prompt" not in distilled


def test_negative_embeddings_of_a_length_of_their_own(probe):
    image, settings = tiny.tiny_image(), {"guidance_scale": 3.0, "steps": 2, "progress": False}
    width = probe.pipe.transformer.config.joint_attention_dim
    given = torch.randn(1, 5, width, generator=torch.Generator().manual_seed(1))
    result = probe.generate(image, "fox", negative_prompt_embeds=given, profile=True, **settings)
    layouts = result.provenance["text"]
    assert layouts["unconditional"] == {"tokens": 5}
    assert layouts["conditional"]["vision_tokens"] == "1-4"
    with pytest.raises(InputError, match="words"):
        probe.family.padding_tokens(
            probe.pipeline_arguments(image, "fox", negative_prompt_embeds=given)
        )


def test_a_saved_pipeline_is_loaded_and_pruned(probe, tmp_path):
    tiny_longcat.build_tiny_pipeline().save_pretrained(tmp_path)
    loaded = Probe(load_pipeline(tmp_path))
    assert loaded.fingerprint == probe.fingerprint
    loaded.pipe.set_progress_bar_config(disable=True)
    image, settings = tiny.tiny_image(), {"steps": 2, "guidance_scale": 1.0, "progress": False}
    # the number that prompts are filled up to is the pipeline's own
    assert loaded.layout(image, "fox").text == 512 + 6
    result = loaded.generate(image, "fox", interventions=[Keep(tuple(range(16)))], **settings)
    assert result.reference_tokens_per_step == (16, 16)


@pytest.mark.parametrize(
    ("prompt", "settings", "message"),
    [
        (["fox", "dog"], {}, "one prompt at a time, not 2"),
        ("x" * 40, {}, "has 40 tokens.*at most 32"),
        ("fox", {"negative_prompt": "y" * 33}, "has 33 tokens.*at most 32"),
        ("don't take the fox's", {}, "don'tdon't|fox'sfox's"),
        (None, {"prompt_embeds": torch.zeros(1, 5, 32)}, "prompt_embeds fails"),
        ("fox", {"joint_attention_kwargs": {}}, "joint_attention_kwargs has no effect"),
        ("fox", {"height": 512}, "no argument 'height'"),
    ],
)
def test_what_is_refused(probe, prompt, settings, message):
    with pytest.raises(InputError, match=message):
        probe.pipeline_arguments(tiny.tiny_image(), prompt, **settings)


def test_pictures_that_are_refused(probe):
    with pytest.raises(InputError, match="without a reference"):
        probe.pipeline_arguments(None, "fox")
    with pytest.raises(InputError, match="reads no picture of 8872 x 32"):
        probe.family.prompt_ids("fox", {"image": tiny.tiny_image(1200, 4)})
