"""What the conformance suite does not ask of JoyImage: sizes, dropped tokens, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recast_probe._utils.seeding import seeded
from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.interventions import (
    Keep,
    Knockout,
    Merge,
    Record,
    ReuseReference,
    Similarity,
    StepCache,
)
from recast_probe.layout import Grid
from recast_probe.probe import Probe
from recast_probe.testing import tiny, tiny_joyimage
from recast_probe.testing.conformance.case import steps_of
from recast_probe.testing.images import assert_same_image
from recast_probe.testing.tiny_qwen import remember_encoded

IMAGE, WIDE = tiny.tiny_image(), tiny.tiny_image(96, 64, seed=4)
PROMPT = "a red fox"
CALL = {"steps": 3, "seed": 5}
GUIDED = {"guidance_scale": 4.0, "negative_prompt": "blurry"}
UNGUIDED = {"guidance_scale": 1.0}
SQUARE = Grid(16, 16)


@pytest.fixture(scope="module")
def probes(tmp_path_factory):
    """Loaded from folders; tests must leave the pipelines as they are."""
    found = {}
    for name in ("edit", "plus"):
        folder = tmp_path_factory.mktemp(name)
        found[name] = Probe.from_pretrained(
            tiny_joyimage.save_tiny_pipeline(folder, plus=name == "plus")
        )
        found[name].pipe.set_progress_bar_config(disable=True)
        remember_encoded(found[name].pipe.vae)
    return found


@pytest.fixture(params=["edit", "plus"])
def probe(request, probes):
    return probes[request.param]


@pytest.fixture
def edit(probes):
    return probes["edit"]


@pytest.fixture
def plus(probes):
    return probes["plus"]


def generate(probe, *interventions, image=IMAGE, prompt=PROMPT, **more):
    return probe.generate(
        image, prompt, interventions=interventions, progress=False, **{**CALL, **UNGUIDED, **more}
    )


def plain(probe, image=IMAGE, prompt=PROMPT, **more):
    arguments = probe.pipeline_arguments(image, prompt, **{**CALL, **UNGUIDED, **more})
    with seeded(CALL["seed"], probe.pipe):
        return np.asarray(probe.pipe(**arguments).images[0])


def called_with(probe, image=IMAGE, **more):
    arguments = probe.pipeline_arguments(image, PROMPT, **CALL, **{**UNGUIDED, **more})
    arguments.pop("generator")
    return arguments


def test_reference_of_edit_has_the_size_of_the_output(edit):
    assert edit.layout(IMAGE).references == (SQUARE,)
    # 1216 x 832 pixels, of which a token has 64 x 64
    wide = Grid(13, 19)
    assert edit.layout(WIDE).generation == wide
    layout = edit.layout(IMAGE, height=512, width=768)
    assert (layout.generation, layout.references) == (wide, (wide,))


def test_references_of_plus_have_sizes_of_their_own(plus):
    layout = plus.layout([IMAGE, WIDE])
    assert (layout.generation, layout.references) == (Grid(13, 19), (SQUARE, Grid(13, 19)))
    assert plus.layout([IMAGE, WIDE], height=512, width=768).generation == Grid(8, 12)
    with pytest.raises(InputError, match="makes no run"):
        plus.layout(IMAGE, height=500, width=768)


def test_without_a_reference(probe):
    layout = probe.layout(None)
    assert (layout.generation, layout.references) == (SQUARE, ())
    assert_same_image(generate(probe, image=None).image, plain(probe, image=None))


def test_mask_of_an_image_that_is_cut(probe):
    image = tiny.tiny_image(120, 64)
    mask = np.zeros((64, 120))
    mask[:, 60:] = 1
    # 1344 x 704 pixels of 1344 x 716.8
    left, top, right, bottom = probe.family.crop_box(image, {})
    assert (left, right) == (0, 1)
    assert (top, bottom) == pytest.approx((6.4 / 716.8, 710.4 / 716.8))
    found = probe.reference_mask(mask, image)
    assert found.shape == (11, 21)
    np.testing.assert_array_equal(found.sum(axis=0) > 0, np.arange(21) > 10)


def test_crop_of_edit_follows_the_size_that_is_given(edit, plus):
    image = tiny.tiny_image(120, 64)
    size = {"height": 1024, "width": 1024}
    middle = pytest.approx((0.5 - 32 / 120, 0, 0.5 + 32 / 120, 1))
    assert edit.family.crop_box(image, size) == middle
    assert plus.family.crop_box(image, size) == plus.family.crop_box(image, {})


def test_states_of_image_and_text_are_told_apart(probe):
    seen = []
    block = probe.pipe.transformer.double_blocks[1]
    hook = block.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        made = generate(probe, Record(tokens="text"), Similarity(blocks=[1]))
        reference = generate(probe, Record(tokens="reference", blocks=[1])).outcomes[0]
    finally:
        hook.remove()
    text, cosines = made.outcomes
    (image_states, text_states), layout = seen[0], probe.layout(IMAGE, PROMPT)
    point = next(p for p in text.values if p.block == 1 and p.step == 0)
    assert torch.equal(text.values[point], text_states.cpu())
    own = image_states[:, layout.generation.size :].cpu()
    point = next(p for p in reference.values if p.step == 0)
    assert torch.equal(reference.values[point], own)
    mean = image_states[:, : layout.generation.size].mean(1, keepdim=True)
    wanted = torch.cosine_similarity(mean.cpu(), own, dim=-1)
    np.testing.assert_allclose(cosines.by_step[0][0, 0], wanted[0], rtol=1e-4, atol=1e-6)


def test_modulated_input_is_what_the_first_block_attends_with(probe):
    inputs, given = {}, {}
    transformer = probe.pipe.transformer
    hooks = [
        transformer.register_forward_pre_hook(
            lambda _, __, named: inputs.update(named), with_kwargs=True
        ),
        transformer.double_blocks[0].attn.register_forward_pre_hook(
            lambda _, __, named: given.update(named), with_kwargs=True
        ),
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
    skipped = generate(probe, StepCache(threshold=1e9))
    assert skipped.provenance["interventions"][0]["run"]["computed_steps"] == {
        "conditional": [0, 2]
    }


@pytest.mark.parametrize("settings", [UNGUIDED, GUIDED], ids=["plain", "guided"])
def test_dropping_is_cutting_every_edge(probe, settings):
    dropped = tuple(range(1, 256, 3))
    cuts = [Knockout("reference", to, tokens=dropped) for to in ("text", "generation", "reference")]
    latents = []
    for arm in ([Keep(tuple(sorted(set(range(256)) - set(dropped))))], cuts, []):
        with steps_of(probe.pipe) as seen:
            generate(probe, *arm, **settings)
        states = torch.stack(seen)
        edit = states.shape[2] == 2
        latents.append(states[:, :, -1:] if edit else states[:, :, :256])
    kept, cut, whole = latents
    effect = float((kept - whole).abs().max())
    assert effect > 1e-3
    assert float((kept - cut).abs().max()) < 1e-3 * effect


@pytest.mark.parametrize("attachment", ["nnsight", "hooks"])
def test_dropped_tokens_are_in_no_profile(probe, attachment):
    made = generate(probe, Keep((0, 7, 200), start=1), profile=True, attachment=attachment)
    assert made.reference_tokens_per_step == (256, 3, 3)
    scores = made.profile.dataset["score"].isel(branch=0, block=2, head=0)
    assert scores.notnull().sum("token").values.tolist() == [256, 3, 3]
    assert "without a saving" in made.provenance["model"]["dropped_tokens"]


def test_what_needs_all_tokens_is_refused_where_some_are_dropped(edit):
    with pytest.raises(InputError, match="full reference"):
        generate(edit, Keep((0, 7)), Record(tokens="reference"))
    text = generate(edit, Keep((0, 7)), Record(tokens="generation")).outcomes[1]
    assert all(states.shape[1] == 256 for states in text.values.values())


def test_reused_keys_in_an_accelerated_pipeline(probe):
    traced = generate(probe, ReuseReference(), **GUIDED)
    arguments = probe.pipeline_arguments(IMAGE, PROMPT, **CALL, **GUIDED)
    reuse = [ReuseReference()]
    with accelerate(probe.pipe, interventions=reuse), seeded(CALL["seed"], probe.pipe):
        made = probe.pipe(**arguments).images[0]
    assert_same_image(made, traced.image)
    assert (np.asarray(made) != plain(probe, **GUIDED)).any()


def test_merging_is_refused(probe):
    with pytest.raises(UnsupportedPipelineError, match="merged"):
        generate(probe, Merge(128))


@pytest.mark.parametrize(
    ("name", "more", "noun"),
    [
        ("edit", {"timesteps": [900, 500, 100]}, "timesteps"),
        ("edit", {"max_sequence_length": 40}, "max_sequence_length"),
        ("edit", {"latents": torch.zeros(1, 1, 4, 1, 16, 16)}, "latents"),
        ("edit", {"negative_prompt_embeds": torch.zeros(1, 9, 32)}, "negative_prompt_embeds_mask"),
        ("plus", {"images": [IMAGE]}, "images"),
        ("plus", {"max_sequence_length": 40}, "max_sequence_length"),
        ("plus", {"prompt_embeds": torch.zeros(1, 9, 32)}, "prompt_embeds"),
        ("plus", {"negative_prompt_embeds": torch.zeros(1, 9, 32)}, "negative_prompt_embeds_mask"),
        ("plus", {"latents": torch.zeros(1, 1, 4, 1, 32, 32)}, "latents"),
    ],
)
def test_arguments_that_are_refused(probes, name, more, noun):
    with pytest.raises(InputError, match=noun):
        generate(probes[name], **more)


def test_text_that_would_be_cut_off_is_refused(probe, monkeypatch):
    text = probe.layout(IMAGE, PROMPT).text
    monkeypatch.setattr(type(probe.family), "_longest", lambda self: text)
    with pytest.raises(InputError, match=f"{text} tokens or more"):
        generate(probe)
    monkeypatch.setattr(type(probe.family), "_longest", lambda self: text + 1)
    assert generate(probe).image.size == (1024, 1024)


def test_several_prompts(edit, plus, monkeypatch):
    with pytest.raises(InputError, match="one prompt at a time, not 2"):
        generate(edit, prompt=[PROMPT, "snow"])
    monkeypatch.setattr(plus.pipe.processor.tokenizer, "padding_side", "left")
    with pytest.raises(InputError, match="padding_side"):
        generate(plus, prompt=[PROMPT, "snow"])
    assert_same_image(generate(plus).image, plain(plus))


def test_several_guided_prompts_are_as_alone(plus):
    together = generate(plus, prompt=[PROMPT, "snow"], image=[IMAGE, WIDE], profile=True, **GUIDED)
    for number, prompt in enumerate((PROMPT, "snow")):
        alone = generate(plus, prompt=prompt, image=[IMAGE, WIDE], profile=True, **GUIDED)
        assert_same_image(together.images[number], alone.image, levels=1)
        np.testing.assert_allclose(
            together.profiles[number].dataset["score"],
            alone.profile.dataset["score"],
            rtol=1e-3,
            atol=1e-6,
        )


def test_initial_noise_can_be_given(probe):
    shape = (1, 1, 4, 1, 32, 32) if probe.family.name == "joyimage-edit" else (1, 4, 1, 32, 32)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    made = generate(probe, latents=latents)
    assert_same_image(made.image, plain(probe, latents=latents))
    assert (np.asarray(made.image) != plain(probe)).any()


def test_sigmas_can_be_given(probe):
    made = generate(probe, sigmas=[1.0, 0.6, 0.3], profile=True)
    assert_same_image(made.image, plain(probe, sigmas=[1.0, 0.6, 0.3]))


def test_text_can_be_given_as_embeddings(edit):
    inputs = edit.family.rehearsal(called_with(edit)).first_step[0]
    text = inputs["encoder_hidden_states"]
    given = {"prompt_embeds": text, "prompt_embeds_mask": torch.ones(text.shape[:2])}
    made = generate(edit, prompt=None, profile=True, **given)
    assert_same_image(made.image, plain(edit))
    arguments = {**called_with(edit), **given}
    arguments.pop("prompt")
    with pytest.raises(InputError, match="embeddings"):
        edit.family.padding_tokens(arguments)


@pytest.mark.parametrize("image", [[IMAGE], None], ids=["pictures", "text"])
def test_parts_of_the_text(probe, image):
    arguments = called_with(probe, image=image, **GUIDED)
    layouts = probe.family.branch_layouts(probe.layout(image, PROMPT, **GUIDED), arguments)
    vision, padding = probe.family.vision_tokens(arguments), probe.family.padding_tokens(arguments)
    for branch, layout in layouts.items():
        assert vision[branch].shape == padding[branch].shape == (1, layout.text)
        # a picture of one megapixel is scaled to at most 8 patches
        assert vision[branch].sum() == (4 if image else 0)
    lengths = [len(probe.pipe.tokenizer(each)["input_ids"]) for each in (PROMPT, "blurry")]
    assert padding["conditional"].sum() == 0
    # calls of their own have texts of their own lengths
    filled = lengths[0] - lengths[1] if probe.family.batched else 0
    assert padding["unconditional"].sum() == filled
    assert (filled > 0) == bool(probe.family.batched)
