"""What the conformance suite does not ask of FIBO Edit: sizes, masks, padding, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.interventions import Keep, Knockout, Merge, Patch, Prune, Record
from recast_probe.layout import Grid
from recast_probe.probe import Probe
from recast_probe.selection.rankings import random
from recast_probe.testing import tiny, tiny_fibo
from recast_probe.testing.images import assert_same_image

IMAGE, WIDE = tiny.tiny_image(), tiny.tiny_image(96, 64, seed=4)
PROMPT = tiny_fibo.edit("a red fox")
CALL = {"steps": 3, "seed": 5, **tiny_fibo.SIZE}
GUIDED = {"guidance_scale": 3.0, "negative_prompt": "blurry"}
UNGUIDED = {"guidance_scale": 1.0}
TOKENS = 16


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """Loaded from a folder; tests must leave the pipeline as it is."""
    loaded = Probe.from_pretrained(tiny_fibo.save_tiny_pipeline(tmp_path_factory.mktemp("fibo")))
    loaded.pipe.set_progress_bar_config(disable=True)
    return loaded


def generate(probe, *interventions, image=IMAGE, prompt=PROMPT, **more):
    return probe.generate(
        image, prompt, interventions=interventions, progress=False, **{**CALL, **more}
    )


def plain(probe, image=IMAGE, prompt=PROMPT, **more):
    arguments = probe.pipeline_arguments(image, prompt, **{**CALL, **more})
    return np.asarray(probe.pipe(**arguments).images[0])


def test_output_has_the_aspect_ratio_of_the_first_reference(probe):
    # 1248 x 832 pixels, of which a token has 16 x 16
    layout = probe.layout([WIDE, IMAGE])
    assert layout.generation == Grid(52, 78)
    assert layout.references == (Grid(4, 6), Grid(4, 4))
    assert probe.layout([WIDE, IMAGE], _auto_resize=False).generation == Grid(4, 6)
    assert probe.layout(IMAGE, height=32, width=96).generation == Grid(2, 6)
    assert probe.layout(tiny.tiny_image(70, 58)).references == (Grid(4, 4),)


def test_without_a_reference_a_size_is_needed(probe):
    assert probe.layout(None, height=32, width=64).references == ()
    assert_same_image(generate(probe, image=None).image, plain(probe, image=None))
    with pytest.raises(InputError, match="height and width"):
        probe.layout(None)


@pytest.mark.parametrize("as_given", ["picture", "array", "path"])
def test_mask_paints_the_reference_over(probe, as_given, tmp_path):
    mask = tiny.tiny_mask()
    mask.save(tmp_path / "mask.png")
    given = {"picture": mask, "array": np.asarray(mask), "path": tmp_path / "mask.png"}[as_given]
    made = np.asarray(generate(probe, mask=given, profile=True).image)
    arguments = probe.pipeline_arguments(IMAGE, PROMPT, **CALL)
    np.testing.assert_array_equal(made, probe.pipe(**arguments, mask=mask).images[0])
    assert (made != plain(probe)).any()


@pytest.mark.parametrize(
    ("image", "more", "noun"),
    [
        (IMAGE, {"mask": tiny.tiny_mask(32, 32)}, "same size"),
        ([IMAGE, WIDE], {"mask": tiny.tiny_mask()}, "exactly one reference"),
        (IMAGE, {"mask": "nowhere.png"}, "nowhere.png"),
        (IMAGE, {"timesteps": [900, 500, 100]}, "timesteps"),
        (IMAGE, {"max_sequence_length": 3001}, "3000"),
        (IMAGE, {"prompt_embeds": torch.zeros(1, 4, 32)}, "prompt_embeds"),
        (IMAGE, {"do_patching": True, "latents": torch.zeros(1, 16, 8)}, "do_patching"),
        (IMAGE, {"latents": torch.zeros(1, 4, 8)}, "latents"),
    ],
)
def test_arguments_that_are_refused(probe, image, more, noun):
    with pytest.raises(InputError, match=noun):
        generate(probe, image=image, **more)


@pytest.mark.parametrize("prompt", ["a red fox", "{edit_instruction: snow}", None])
def test_prompt_must_be_json(probe, prompt):
    with pytest.raises(InputError, match="prompt"):
        generate(probe, prompt=prompt)


def test_patched_latents_have_four_pixels_a_token():
    pipe = tiny_fibo.build_tiny_pipeline(patched=True)
    pipe.set_progress_bar_config(disable=True)
    probe = Probe(pipe)
    assert probe.layout(WIDE, do_patching=True, **tiny_fibo.SIZE).references == (Grid(2, 3),)
    made = generate(probe, do_patching=True, profile=True)
    assert_same_image(made.image, plain(probe, do_patching=True))
    assert made.profile.dataset.sizes["token"] == 4


def test_initial_noise_can_be_given(probe):
    latents = torch.randn(1, 16, 8, generator=torch.Generator().manual_seed(CALL["seed"] + 1))
    made = generate(probe, latents=latents, profile=True)
    assert_same_image(made.image, plain(probe, latents=latents))
    assert (np.asarray(made.image) != plain(probe)).any()


def padding(probe, **more):
    arguments = probe.pipeline_arguments(IMAGE, PROMPT, **CALL, **more)
    arguments.pop("generator")
    return probe.family.padding_tokens(arguments)


def test_padding_is_what_the_mask_hides(probe):
    found = padding(probe, **GUIDED)
    assert not found["conditional"].any()
    # a letter is a token
    assert found["unconditional"].tolist() == [[False] * 6 + [True] * (len(PROMPT) - 6)]
    assert padding(probe, guidance_scale=3.0)["unconditional"].sum() == len(PROMPT) - 1
    assert {name: rows.any() for name, rows in padding(probe, **UNGUIDED).items()} == {
        "conditional": False
    }


@pytest.mark.parametrize("negative", ["blurry", "x" * len(PROMPT), "y" * 50])
@pytest.mark.parametrize("attachment", ["nnsight", "hooks"])
def test_prompts_of_any_two_lengths(probe, negative, attachment):
    settings = {**GUIDED, "negative_prompt": negative}
    made = generate(probe, profile=True, attachment=attachment, **settings)
    assert_same_image(made.image, plain(probe, **settings))
    assert made.profile.layout.text == max(len(negative), len(PROMPT))
    kept = generate(probe, Keep((0, 3, 9)), attachment=attachment, **settings)
    assert (np.asarray(kept.image) != np.asarray(made.image)).any()


def test_padding_gets_no_attention(probe):
    cut = Knockout("padding", "generation")
    made = generate(probe, cut, **{**GUIDED, "negative_prompt": "y" * 50})
    assert_same_image(made.image, plain(probe, **{**GUIDED, "negative_prompt": "y" * 50}), levels=1)


def test_several_guided_prompts_are_as_alone(probe):
    prompts = [PROMPT, tiny_fibo.edit("snow")]
    together = generate(probe, prompt=prompts, profile=True, **GUIDED)
    assert list(together.profile.dataset["branch"].values) == ["conditional", "unconditional"]
    for number, prompt in enumerate(prompts):
        alone = generate(probe, prompt=prompt, profile=True, **GUIDED)
        assert_same_image(together.images[number], alone.images[0], levels=1)
        np.testing.assert_allclose(
            together.profiles[number].dataset["score"],
            alone.profile.dataset["score"],
            rtol=1e-4,
            atol=1e-7,
        )


def test_merged_tokens_are_weighed_beside_a_mask(probe):
    whole = generate(probe, **GUIDED)
    merged = generate(probe, Merge(4), **GUIDED)
    weightless = generate(probe, Merge(4, proportional=False), **GUIDED)
    assert merged.reference_tokens_per_step == (4, 4, 4)
    images = [np.asarray(each.image) for each in (whole, merged, weightless)]
    assert (images[0] != images[1]).any()
    assert (images[1] != images[2]).any()


@pytest.mark.parametrize("what", ["keys", "values", "residual", "embeddings"])
def test_reference_activations_are_patched_without_guidance(probe, what):
    call = {"steps": 3, "seed": 5, **tiny_fibo.SIZE, **UNGUIDED, "progress": False}
    own, other = (
        probe.record(image, PROMPT, what=what, **call) for image in (IMAGE, IMAGE.rotate(180))
    )
    assert_same_image(generate(probe, Patch(own), **UNGUIDED).image, plain(probe, **UNGUIDED))
    patched = generate(probe, Patch(other), Record(what), **UNGUIDED).outcomes[1]
    assert patched.values.keys() == other.values.keys()
    assert all(torch.equal(found, other.values[point]) for point, found in patched.values.items())


@pytest.mark.parametrize("what", ["keys", "values"])
def test_keys_and_values_are_patched_by_branch(probe, what):
    call = {"steps": 3, "seed": 5, **tiny_fibo.SIZE, **GUIDED, "progress": False}
    own, other = (
        probe.record(image, PROMPT, what=what, **call) for image in (IMAGE, IMAGE.rotate(180))
    )
    assert sorted(own.branches) == ["conditional", "unconditional"]
    assert_same_image(generate(probe, Patch(own), **GUIDED).image, plain(probe, **GUIDED))
    assert (
        np.asarray(generate(probe, Patch(other), **GUIDED).image) != plain(probe, **GUIDED)
    ).any()


def test_text_that_blocks_leave_is_recorded_and_not_patched(probe):
    call = {"steps": 3, "seed": 5, **tiny_fibo.SIZE, **UNGUIDED, "progress": False}
    found = probe.record(IMAGE, PROMPT, what=("keys", "residual"), tokens="text", **call)
    with pytest.raises(UnsupportedPipelineError, match="replaces a part of every text token"):
        generate(probe, Patch(found, "residual"), **UNGUIDED)
    assert_same_image(
        generate(probe, Patch(found, "keys"), **UNGUIDED).image, plain(probe, **UNGUIDED)
    )


def test_hidden_states_of_two_branches_are_refused(probe):
    with pytest.raises(UnsupportedPipelineError, match="rows of one call"):
        generate(probe, Record("residual"), **GUIDED)


def test_what_a_prompt_loses_is_said(probe):
    with pytest.warns(UserWarning, match="cut off"):
        made = generate(probe, max_sequence_length=20, **GUIDED)
    assert made.profiles == ()
    assert any(str(len(PROMPT) - 20) in each for each in made.provenance["remarks"])


def test_negative_prompt_without_guidance_is_said(probe):
    made = generate(probe, **UNGUIDED, negative_prompt="blurry")
    assert any("negative_prompt has no effect" in each for each in made.provenance["remarks"])


def test_modulated_input_is_what_the_first_block_attends_with(probe):
    inputs, given = {}, {}
    transformer = probe.pipe.transformer
    hooks = [
        module.register_forward_pre_hook(
            lambda _, __, named, into=into: into.update(named), with_kwargs=True
        )
        for module, into in (
            (transformer, inputs),
            (transformer.transformer_blocks[0].attn, given),
        )
    ]
    try:
        generate(probe, **GUIDED)
    finally:
        for hook in hooks:
            hook.remove()
    layout = probe.family.observed_layout(inputs)
    with torch.no_grad():
        found = probe.family.modulated_input(inputs, layout)
    torch.testing.assert_close(found, given["hidden_states"][:, : layout.generation.size])


def test_pruned_tokens_are_those_of_the_ranking(probe):
    made = generate(probe, Prune(random(TOKENS, 0), 5, start=1), profile=True, **GUIDED)
    assert made.reference_tokens_per_step == (16, 5, 5)
    scores = made.profile.dataset["score"]
    assert int(scores.isel(branch=1, step=2, block=0, head=0).notnull().sum()) == 5
