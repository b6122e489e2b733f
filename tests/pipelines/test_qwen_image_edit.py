"""Qwen-Image-Edit's family: what it predicts is what the transformer gets, and what it refuses."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from diffusers.models.transformers import transformer_qwenimage

import recast_probe as rp
from recast_probe.errors import InputError, UnsupportedPipelineError, VerificationError
from recast_probe.interventions import Merge
from recast_probe.layout import Grid
from recast_probe.pipelines import find_family
from recast_probe.runs.verification import patches
from recast_probe.runs.watching import watch_attention
from recast_probe.selection.merging import match
from recast_probe.testing import tiny, tiny_qwen

NEGATIVE = "blurry, of low quality"


class SeenError(Exception):
    """The transformer was called."""


@pytest.fixture
def first_inputs():
    """Inputs of the transformer's first call in a run of a probe's pipeline; then it stops."""

    def run(probe, image, prompt="fox", **settings):
        found = {}

        def stop(module, positional, inputs):
            found.update(inputs)
            raise SeenError

        hook = probe.pipe.transformer.register_forward_pre_hook(stop, with_kwargs=True)
        try:
            with pytest.raises(SeenError):
                probe.pipe(**probe.pipeline_arguments(image, prompt, **settings))
        finally:
            hook.remove()
        return found

    return run


@pytest.fixture
def edit(qwen_probes):
    return qwen_probes["edit"]


@pytest.fixture
def plus(qwen_probes):
    return qwen_probes["plus"]


@pytest.fixture
def two():
    return [tiny.tiny_image(64, 64), tiny.tiny_image(96, 40, seed=1)]


@pytest.mark.parametrize("size", [(64, 64), (300, 100), (31, 90)])
def test_the_predicted_layout_is_the_observed_one(edit, first_inputs, size):
    image = tiny.tiny_image(*size)
    inputs = first_inputs(edit, image, "a red fox")
    predicted = edit.layout(image, "a red fox")
    assert edit.family.observed_layout(inputs) == predicted
    # the output has the reference's aspect ratio where nothing else is said
    assert predicted.references == (predicted.generation,)
    assert predicted.generation.size <= 64


def test_the_output_has_the_size_that_is_asked_for(edit, first_inputs):
    image = tiny.tiny_image(90, 60)
    inputs = first_inputs(edit, image, **tiny_qwen.SIZE)
    predicted = edit.layout(image, "fox", **tiny_qwen.SIZE)
    assert edit.family.observed_layout(inputs) == predicted
    assert predicted.generation == Grid(*tiny_qwen.GENERATION)
    assert predicted.references == (Grid(6, 9),)


def test_several_references(plus, first_inputs, two):
    inputs = first_inputs(plus, two)
    predicted = plus.layout(two, "fox")
    assert plus.family.observed_layout(inputs) == predicted
    assert predicted.references == (Grid(8, 8), Grid(5, 12))
    # the last reference decides
    assert predicted.generation == Grid(5, 12)


def test_text_tokens_are_the_prompt_and_the_pictures(edit, plus, two):
    for probe, images in ((edit, two[0]), (plus, two)):
        family, pipe = probe.family, probe.pipe
        arguments = probe.pipeline_arguments(
            images, "fox", negative_prompt=NEGATIVE, **tiny_qwen.SIZE
        )
        pictures = family.scaled_for_text(family.references(arguments))
        vision = family.vision_tokens(arguments)
        for branch, prompt in (("conditional", "fox"), ("unconditional", NEGATIVE)):
            embeddings, mask = pipe.encode_prompt(prompt=prompt, image=pictures)
            assert mask is None
            assert vision[branch].shape == (1, embeddings.shape[1])
            assert not family.padding_tokens(arguments)[branch].any()
        # exactly those that change with the picture before anything could be read from it
        before, _ = family.pictures(family.references(arguments))
        text = pipe.prompt_template_encode.format(before + "fox")
        ids = pipe.processor(text=[text], images=pictures)["input_ids"][0]
        opening = pipe.prompt_template_encode_start_idx
        wanted = np.asarray(ids[opening:]) == pipe.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        np.testing.assert_array_equal(vision["conditional"][0], wanted)
        assert wanted.sum() > 3 * len(family.references(arguments))


@pytest.mark.parametrize("sigmas", [None, [1.0, 0.6, 0.3]])
def test_the_predicted_schedule_is_the_schedulers(edit, sigmas):
    image, seen = tiny.tiny_image(90, 60), []
    settings = {**tiny_qwen.SIZE, "sigmas": sigmas}
    profile = edit.profile(image, "fox", steps=3, progress=False, **settings)
    arguments = edit.pipeline_arguments(image, "fox", steps=3, **settings)

    def note(pipeline, step, timestep, tensors):
        seen.append(float(timestep))
        return tensors

    edit.pipe(**arguments, callback_on_step_end=note)
    dataset = profile.dataset
    np.testing.assert_allclose(dataset["timestep"].values, seen)
    np.testing.assert_allclose(dataset["sigma"].values, edit.pipe.scheduler.sigmas[:3], atol=1e-7)


def test_layouts_that_are_no_grids(edit, first_inputs):
    inputs = first_inputs(edit, tiny.tiny_image(), **tiny_qwen.SIZE)
    observe = edit.family.observed_layout
    for shapes in ([[(1, 2, 3), (1, 8, 7)]], [[(1, 2, 3), (2, 4, 8)]]):
        with pytest.raises(VerificationError, match="does not lay out tokens"):
            observe({**inputs, "img_shapes": shapes})


@pytest.mark.parametrize("name", ["edit", "plus"])
def test_kept_tokens_are_as_in_a_sequence_where_the_others_are_masked(
    qwen_probes, first_inputs, two, monkeypatch, name
):
    """The velocity of a call without some reference tokens, and of a full call whose attention
    gives these the logit minus infinity: rotary positions and, with ``zero_cond_t`` (of "plus"),
    modulation of what is left are those of the full sequence."""
    probe = qwen_probes[name]
    transformer, family = probe.pipe.transformer, probe.family
    inputs = first_inputs(probe, two if name == "plus" else two[1], **tiny_qwen.SIZE)
    assert transformer.config.zero_cond_t == (name == "plus")
    layout = family.observed_layout(inputs)
    kept = np.array([1, 2, 11, layout.reference_tokens - 3])
    generation, before = layout.generation.size, patches(transformer)

    def velocity(given, positions=nullcontext):
        with torch.no_grad(), positions():
            return transformer(**given)[0][:, :generation]

    pruned = family.keep_reference_tokens(inputs, layout, kept)
    assert family.count_reference_tokens(pruned, layout) == 4
    found = velocity(pruned, lambda: family.keep_rotary_positions())
    assert patches(transformer) == before
    own = transformer_qwenimage.dispatch_attention_fn

    def masked(query, key, value, **options):
        seen = torch.zeros(key.shape[1], dtype=torch.bool)
        seen[: layout.text + generation] = True
        seen[layout.text + generation + kept] = True
        return own(query, key, value, **{**options, "attn_mask": seen[None, None, None]})

    full = velocity(inputs)
    monkeypatch.setattr(transformer_qwenimage, "dispatch_attention_fn", masked)
    wanted = velocity(inputs)
    monkeypatch.undo()
    assert (found - wanted).abs().max() < 2e-6
    assert (full - wanted).abs().max() > 1e-2
    # numbering the kept tokens anew is another computation
    row = {**pruned, "img_shapes": [[(1, *tiny_qwen.GENERATION), (1, 1, 4)]]}
    assert (velocity(row) - wanted).abs().max() > 1e-3


def test_merged_tokens_are_weighed_by_their_size_at_the_place_of_one_of_them(plus, two):
    settings = {"steps": 3, "progress": False, "negative_prompt": NEGATIVE, **tiny_qwen.SIZE}
    entering, masks = [], []
    hook = plus.pipe.transformer.img_in.register_forward_pre_hook(
        lambda module, positional: entering.append(positional[0].clone())
    )

    def note(call, attention, arguments):
        masks.append((call, arguments["attn_mask"], arguments["key"].shape[1]))

    merge = Merge(40, start=1)
    with watch_attention(plus.pipe.transformer, note):
        traced = plus.generate(two, "fox", interventions=[merge], **settings)
    hook.remove()
    assert traced.reference_tokens_per_step == (124, 40, 40)
    reference = entering[0][0, 6:]
    layout = plus.layout(two, "fox", **tiny_qwen.SIZE)
    groups = match(reference, layout.references, 2).groups(40)
    torch.testing.assert_close(entering[2][0, 6:], groups.mean(reference))
    assert int(groups.sizes.max()) > 1
    lengths = set()
    for call, mask, keys in masks:
        if call < 2:
            assert mask is None
            continue
        weights = torch.zeros(keys)
        weights[-40:] = groups.sizes.float().log()
        torch.testing.assert_close(mask.flatten(), weights)
        lengths.add(keys)
    assert len(masks) == 6 * tiny_qwen.BLOCKS
    assert len(lengths) == 2
    found = [
        plus.generate(two, "fox", interventions=[each], **settings, attachment="hooks").image
        for each in (merge, Merge(40, start=1, proportional=False))
    ]
    np.testing.assert_array_equal(np.asarray(found[0]), np.asarray(traced.image))
    assert np.asarray(found[1]).tolist() != np.asarray(found[0]).tolist()


def test_what_is_refused(edit, plus, two):
    with pytest.raises(InputError, match="takes one reference image, not 2"):
        edit.layout(two)
    for probe in (edit, plus):
        with pytest.raises(InputError, match="makes no image without a reference"):
            probe.generate(None, "fox")
        with pytest.raises(InputError, match="one prompt at a time, not 2"):
            probe.profile(two[0], ["fox", "cat"])
        with pytest.raises(InputError, match="lens needs a run without a reference"):
            rp.text_lens(probe, two[0], "fox")
    with pytest.raises(InputError, match="smaller than one token"):
        edit.layout(two[0], height=100, width=256)
    with pytest.raises(InputError, match="smaller than one token"):
        edit.layout(tiny.tiny_image(2000, 10))
    with pytest.raises(InputError, match="cannot do for steps=1"):
        edit.profile(two[0], "fox", steps=1)
    with pytest.raises(InputError, match="prompt_embeds_mask is given without prompt_embeds"):
        edit.layout(two[0], prompt_embeds_mask=torch.ones(1, 3))


def test_pipelines_of_other_parts_are_refused(edit):
    pipe = tiny_qwen.build_tiny_pipeline()
    pipe.transformer.transformer_blocks[1].attn.processor = object()
    with pytest.raises(UnsupportedPipelineError, match=r"transformer_blocks\.1\.attn\.processor"):
        find_family(pipe)
    pipe = tiny_qwen.build_tiny_pipeline()
    pipe.transformer.pos_embed = torch.nn.Identity()
    with pytest.raises(UnsupportedPipelineError, match="pos_embed"):
        find_family(pipe)
    pipe.transformer.register_to_config(guidance_embeds=True)
    pipe.transformer.pos_embed = edit.pipe.transformer.pos_embed
    with pytest.raises(UnsupportedPipelineError, match="guidance_embeds=True"):
        find_family(pipe)
    pipe.image_processor = None
    with pytest.raises(UnsupportedPipelineError, match="image_processor"):
        find_family(pipe)
