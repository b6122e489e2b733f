"""What the families of FLUX.2 predict is what the unmodified pipelines do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_probe.errors import InputError, UnsupportedPipelineError, VerificationError
from recast_probe.layout import Grid
from recast_probe.pipelines import find_family
from recast_probe.pipelines.loading import load_pipeline
from recast_probe.testing import tiny, tiny_flux2


class SeenError(Exception):
    """The transformer was called; nothing after it is needed."""


def first_inputs(pipeline, arguments) -> dict:
    """The inputs of the first transformer call of a plain run."""
    found = {}

    def note(module, positional, inputs):
        found.update(inputs)
        raise SeenError

    hook = pipeline.transformer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        pipeline(**arguments)
    except SeenError:
        return found
    finally:
        hook.remove()
    raise AssertionError("the transformer was not called")


def check_layout(probe, images, **settings):
    predicted = probe.layout(images, **settings)
    arguments = probe.pipeline_arguments(images, "fox", steps=1, **settings)
    assert probe.family.observed_layout(first_inputs(probe.pipe, arguments)) == predicted
    return predicted


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(64, 200), st.integers(64, 200)), min_size=1, max_size=3)
)
def test_the_predicted_layout_is_the_observed_one(flux2_probes, sizes):
    images = [tiny.tiny_image(*size) for size in sizes]
    layout = check_layout(flux2_probes["flux2"], images)
    assert layout.references == tuple(Grid(height // 16, width // 16) for width, height in sizes)
    assert layout.generation == layout.references[0], "the output has the first one's size"


@pytest.mark.parametrize("size", [(1500, 1001), (1024, 1025), (3000, 400), (1024, 1024)])
def test_large_references_are_scaled_to_a_megapixel_and_cropped(flux2_probe, size):
    """Only the sizes are checked; the transformer does not run."""
    image = tiny.tiny_image(*size)
    layout = check_layout(flux2_probe, [image], height=64, width=128)
    assert layout.generation == Grid(4, 8)
    (grid,) = layout.references
    assert grid.size <= 4096
    assert grid.size > 3800


def test_sizes_of_the_output(flux2_probe, image):
    wide = tiny.tiny_image(128, 64)
    assert flux2_probe.layout([wide, image]).generation == Grid(4, 8)
    assert check_layout(flux2_probe, wide, height=32).generation == Grid(2, 8)
    assert check_layout(flux2_probe, wide, height=50, width=79).generation == Grid(3, 4)
    arguments = flux2_probe.pipeline_arguments(None, "fox", steps=1)
    assert (arguments["height"], arguments["width"]) == (tiny.SIZE, tiny.SIZE)
    inputs = first_inputs(flux2_probe.pipe, arguments)
    assert flux2_probe.family.observed_layout(inputs).references == ()


@pytest.mark.parametrize("steps", [1, 3, 50])
@pytest.mark.parametrize("sigmas", [None, "own"])
def test_the_predicted_schedule_is_the_observed_one(flux2_probe, steps, sigmas):
    pipeline, family = flux2_probe.pipe, flux2_probe.family
    given_sigmas = None if sigmas is None else np.linspace(0.9, 0.1, steps).tolist()
    arguments = {"num_inference_steps": steps, "sigmas": given_sigmas}
    layout = flux2_probe.layout(tiny.tiny_image(128, 80))
    schedule = family.predict_schedule(layout, arguments)
    asked = flux2_probe.pipeline_arguments(
        tiny.tiny_image(128, 80), "fox", steps=steps, sigmas=given_sigmas
    )
    first_inputs(pipeline, asked)
    np.testing.assert_array_equal(schedule.timesteps, pipeline.scheduler.timesteps.double())
    np.testing.assert_array_equal(schedule.sigmas, pipeline.scheduler.sigmas[:-1].double())
    assert len(schedule) == steps


def test_the_shift_of_large_images_is_the_pipelines(flux2_probe):
    from diffusers.pipelines.flux2 import pipeline_flux2, pipeline_flux2_klein

    own = (pipeline_flux2, pipeline_flux2_klein)
    for tokens, steps in ((64, 4), (4096, 28), (4300, 50), (4301, 50), (8192, 4)):
        found = flux2_probe.family.shift(flux2_probe.pipe.scheduler, tokens, steps)
        assert [module.compute_empirical_mu(tokens, steps) for module in own] == [found] * 2


def test_padding_is_what_the_text_encoder_does_not_see(flux2_probe):
    pipeline, prompts = flux2_probe.pipe, ["a red fox", "snow"]
    seen = []
    hook = pipeline.text_encoder.register_forward_pre_hook(
        lambda module, positional, inputs: seen.append(inputs["attention_mask"]), with_kwargs=True
    )
    try:
        asked = flux2_probe.pipeline_arguments(tiny.tiny_image(), prompts, steps=1)
        first_inputs(pipeline, asked)
    finally:
        hook.remove()
    found = flux2_probe.family.padding_tokens(asked)
    assert list(found) == list(flux2_probe.family.branch_names(asked))
    assert len(seen) == len(found)
    for mask, padding in zip(seen, found.values(), strict=True):
        np.testing.assert_array_equal(padding, mask == 0)
    counts = found["conditional"].sum(1)
    assert 0 < counts[0] < counts[1]


def test_the_longest_prompt_is_the_tokenizers_or_a_processors(flux2_probe):
    class Processor:
        tokenizer = flux2_probe.pipe.tokenizer

    class Pipeline:
        tokenizer = Processor()

    own = flux2_probe.family.longest_prompt()
    assert own in tiny_flux2.TEXT_TOKENS.values()
    assert flux2_probe.family.longest_prompt() == own
    assert flux2_probe.layout(tiny.tiny_image(), max_sequence_length=44).text == 44


@pytest.mark.parametrize(
    ("name", "arguments", "branches"),
    [
        ("flux2", {}, 1),
        ("flux2", {"guidance_scale": 9.0}, 1),
        ("klein", {}, 2),
        ("klein", {"guidance_scale": 1.0}, 1),
        ("klein", {"guidance_scale": 1.5}, 2),
        ("distilled", {"guidance_scale": 4.0}, 1),
    ],
)
def test_branches_are_the_calls_of_a_step(flux2_probes, image, name, arguments, branches):
    probe, calls = flux2_probes[name], []
    hook = probe.pipe.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        result = probe.generate(image, "fox", steps=2, progress=False, **arguments)
    finally:
        hook.remove()
    assert len(calls) == 2 * branches
    assert len(result.provenance["verification"]["branches"]) == branches
    said = {"flux2": None, "klein": False, "distilled": True}[name]
    assert result.provenance["model"].get("distilled") is said


def test_the_modulated_input_is_what_the_first_block_attends_with(flux2_probe, image):
    pipeline, seen = flux2_probe.pipe, []
    asked = flux2_probe.pipeline_arguments(image, "fox", steps=1)
    inputs = first_inputs(pipeline, asked)
    hook = pipeline.transformer.transformer_blocks[0].attn.register_forward_pre_hook(
        lambda module, positional, named: seen.append(named["hidden_states"]), with_kwargs=True
    )
    try:
        with torch.no_grad():
            pipeline.transformer(**inputs)
            found = flux2_probe.family.modulated_input(inputs, flux2_probe.layout(image))
    finally:
        hook.remove()
    torch.testing.assert_close(found, seen[0][:, :16], atol=1e-6, rtol=1e-6)


def test_a_mask_is_cropped_as_its_reference_is(flux2_probe):
    """15 of 79 pixels are cut off, 7 of them at the left: 4 columns of 16 pixels from there on."""
    mask = np.zeros((64, 79))
    mask[:, 7:23] = 1
    found = flux2_probe.reference_mask(mask, tiny.tiny_image(79, 64))
    np.testing.assert_array_equal(found, np.arange(4)[None] == np.zeros((4, 1)))
    mask = np.zeros((64, 79))
    mask[:, :7] = mask[:, 71:] = 1
    with pytest.raises(InputError, match="no token inside"):
        flux2_probe.reference_mask(mask, tiny.tiny_image(79, 64))


@pytest.mark.parametrize(
    ("size", "message"),
    [((63, 100), "too small: 63.100"), ((600, 64), "Aspect ratio too extreme"), ((5, 5), "small")],
)
def test_references_that_the_pipeline_refuses(flux2_probe, size, message):
    with pytest.raises(InputError, match=message):
        flux2_probe.layout(tiny.tiny_image(*size))


def test_arguments_that_cannot_be_used(flux2_probes, image):
    with pytest.raises(InputError, match=r"upsample_prompt\(\.\.\.\), and give the probe"):
        flux2_probes["flux2"].layout(image, caption_upsample_temperature=0.15)
    with pytest.raises(InputError, match="takes no argument 'negative_prompt'"):
        flux2_probes["klein"].profile(image, "fox", negative_prompt="blurry")
    with pytest.raises(InputError, match=r"negative_prompt_embeds must have the shape .* \(1,\)"):
        flux2_probes["klein"].generate(image, "fox", negative_prompt_embeds=torch.zeros(1))
    with pytest.raises(InputError, match="max_sequence_length=513 is beyond the 512"):
        flux2_probes["flux2"].layout(image, max_sequence_length=513)
    with pytest.raises(InputError, match="0 x 4 generation tokens; choose at least 16 x 16"):
        flux2_probes["klein"].layout(image, height=10)


def test_positions_that_are_no_raster(flux2_probe, image):
    asked = flux2_probe.pipeline_arguments([image, image], "fox", steps=1)
    inputs = first_inputs(flux2_probe.pipe, asked)
    family, positions = flux2_probe.family, inputs["img_ids"]
    assert positions.shape == (1, 48, 4)
    assert sorted(positions[0, :, 0].unique().tolist()) == [0, 10, 20]
    last = positions.clone()
    last[0, 20, 3] = 1
    for broken in (positions[:, :-1], positions.flip(1), last):
        with pytest.raises(VerificationError, match="raster"):
            family.observed_layout({**inputs, "img_ids": broken})


def test_processors_that_are_not_diffusers_own_are_named():
    from diffusers.models.transformers.transformer_flux2 import Flux2KVAttnProcessor

    klein = tiny_flux2.build_klein()
    klein.transformer.transformer_blocks[1].attn.set_processor(Flux2KVAttnProcessor())
    with pytest.raises(UnsupportedPipelineError, match=r"blocks\.1\.attn\.processor \(Flux2Attn"):
        find_family(klein)


def test_a_part_whose_package_is_missing_says_so(flux2_folders, monkeypatch):
    from diffusers import Flux2Pipeline

    def fail(*_, **__):
        raise ImportError("PixtralProcessor requires the Torchvision library")

    monkeypatch.setattr(Flux2Pipeline, "from_pretrained", fail)
    with pytest.raises(InputError, match="needs a package that is not installed: PixtralProc"):
        load_pipeline(flux2_folders["flux2"])
