"""LTX-Video's family: what it predicts is what the transformer gets, frames, drops and refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule
from PIL import Image

import recast_probe as rp
from recast_probe.errors import InputError, UnsupportedPipelineError, VerificationError
from recast_probe.interventions import (
    Keep,
    Knockout,
    Merge,
    Patch,
    ReuseReference,
    Similarity,
    StepCache,
    WithoutReference,
)
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.ltx.whole_output import whole_output
from recast_probe.probe import Probe
from recast_probe.testing import tiny, tiny_ltx
from recast_probe.testing.conformance.case import Case, Runs, distance

RUN = {**tiny_ltx.SETTINGS, "steps": 3, "progress": False}
GUIDED = {"guidance_scale": 3.0, "negative_prompt": "blurry"}


@pytest.fixture(scope="module")
def probe():
    return Probe(tiny_ltx.build_tiny_pipeline())


@pytest.fixture(scope="module")
def runs(probe):
    images = [tiny.tiny_image()]
    case = Case("LTX", tiny_ltx.build_tiny_pipeline, images, settings=tiny_ltx.SETTINGS)
    return Runs(case, probe_of=probe)


def inputs_of(probe, image=None, steps=3, **settings):
    """What the transformer is given in the first call of a plain run."""
    found = []
    hook = probe.pipe.transformer.register_forward_pre_hook(
        lambda _, __, inputs: found.append(inputs), with_kwargs=True
    )
    settings = {**tiny_ltx.SETTINGS, **settings}
    try:
        probe.pipe(**probe.pipeline_arguments(image, "a fox", steps=steps, **settings))
    finally:
        hook.remove()
    return found[0]


@pytest.mark.parametrize(
    ("settings", "images", "generation"),
    [
        ({}, 1, Grid(4, 4, layers=3)),
        ({"height": 32, "width": 96, "num_frames": 5, "frame_index": 3}, 1, Grid(2, 6, layers=2)),
        ({"num_frames": 1}, 1, Grid(4, 4)),
        ({"num_frames": 12, "frame_index": [4, 11]}, 2, Grid(4, 4, layers=3)),
        ({"frame_index": 4}, 2, Grid(4, 4, layers=3)),
        ({"frame_index": [8, 4, 8]}, 3, Grid(4, 4, layers=3)),
        ({}, 0, Grid(4, 4, layers=3)),
    ],
)
@pytest.mark.parametrize("guided", [False, True])
def test_the_predicted_layout_is_the_observed_one(probe, settings, images, generation, guided):
    given = [tiny.tiny_image(96, 64, seed=number) for number in range(images)]
    settings = {**settings, **(GUIDED if guided else {})}
    layout = probe.layout(given or None, "a fox", **{**tiny_ltx.SETTINGS, **settings})
    picture = Grid(generation.rows, generation.columns)
    assert layout == TokenLayout(0, generation, (picture,) * images)
    inputs = inputs_of(probe, given or None, **settings)
    assert probe.family.observed_layout(inputs) == layout
    assert len(inputs["hidden_states"]) == 1 + guided
    seconds = inputs["video_coords"][0, 0].view(-1, picture.size)
    assert (seconds == seconds[:, :1]).all()
    times = settings.get("frame_index", 8)
    times = times if isinstance(times, list) else [times] * images
    np.testing.assert_allclose(seconds[:images, 0] * 25, times, rtol=1e-6)
    if images:
        np.testing.assert_array_equal(inputs["timestep"][0, : picture.size * images], 0)
    assert probe.family.observed_timestep(inputs).tolist() == [1000.0] * (1 + guided)


def test_steps_are_those_of_the_pipeline_and_not_evenly_spaced(probe):
    profile = probe.profile(tiny.tiny_image(), "a fox", **{**RUN, "steps": 5})
    expected = linear_quadratic_schedule(5) * 1000
    np.testing.assert_allclose(profile.dataset["timestep"], expected, rtol=1e-6)
    assert probe.generate(tiny.tiny_image(), "a fox", **{**RUN, "steps": 1}).mean_budget == 16


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda coords: coords[..., :-1], "63 tokens"),
        (lambda coords: coords.flip(2), "64 tokens"),
        (lambda coords: coords.roll(1, dims=2), "64 tokens"),
        (lambda coords: coords + torch.tensor([1.0, 0, 0])[:, None], "begin at 0"),
        # the last two pictures of the video in the wrong order
        (lambda coords: coords[..., [*range(32), *range(48, 64), *range(32, 48)]], "begin at 0"),
        # a picture's tokens at two times
        (lambda coords: coords + torch.eye(64)[40] * torch.eye(3)[0][:, None], "begin at 0"),
    ],
)
def test_tokens_that_are_no_pictures_in_time_are_noticed(probe, damage, match):
    inputs = inputs_of(probe, tiny.tiny_image())
    damaged = {**inputs, "video_coords": damage(inputs["video_coords"])}
    with pytest.raises(VerificationError, match=f"{match}.*ltx-condition"):
        probe.family.observed_layout(damaged)


@pytest.mark.parametrize("kept", [(0, 5, 17, 31), (), tuple(range(32))])
def test_dropped_tokens_leave_the_others_where_and_when_they_are(probe, kept):
    images = [tiny.tiny_image(seed=number) for number in range(2)]
    inputs = inputs_of(probe, images, frame_index=[4, 8], **GUIDED)
    layout = probe.family.observed_layout(inputs)
    edited = probe.family.keep_reference_tokens(inputs, layout, kept)
    rows = [*kept, *range(32, 32 + 48)]
    assert torch.equal(edited["hidden_states"], inputs["hidden_states"][:, rows])
    assert torch.equal(edited["video_coords"], inputs["video_coords"][:, :, rows])
    assert torch.equal(edited["timestep"], inputs["timestep"][:, rows])
    assert probe.family.count_reference_tokens(edited, layout) == len(kept)
    features = probe.family.reference_features(inputs, layout)
    assert torch.equal(features, inputs["hidden_states"][:, :32])


def test_the_pipeline_gets_as_many_outputs_as_it_gave_tokens(probe):
    transformer = probe.pipe.transformer
    inputs = inputs_of(probe, tiny.tiny_image())
    layout = probe.family.observed_layout(inputs)
    edited = probe.family.keep_reference_tokens(inputs, layout, (2, 3))
    edited_tensors = {name: edited[name] for name in ("hidden_states", "video_coords", "timestep")}
    with torch.no_grad():
        (few,) = transformer(**edited)
        with whole_output(transformer):
            drop = transformer.register_forward_pre_hook(
                lambda _, given, named: (given, {**named, **edited_tensors}), with_kwargs=True
            )
            try:
                (whole,) = transformer(**inputs)
                (named,) = transformer(**{**inputs, "return_dict": True}).to_tuple()
            finally:
                drop.remove()
        (after,) = transformer(**edited)
    assert whole.shape == named.shape == (1, 64, 8)
    assert not whole[:, :14].any()
    assert torch.equal(whole[:, 14:], few)
    assert torch.equal(after, few)


@pytest.mark.parametrize("attachment", ["nnsight", "hooks"])
@pytest.mark.parametrize("guidance", [{}, GUIDED], ids=["plain", "guided"])
def test_what_is_dropped_does_not_reach_the_references_latents(runs, attachment, guidance):
    """A reference is put back in every step, so its latents are those of the plain run."""
    several = Runs(runs.case, probe_of=runs.probe, more=guidance)
    plain = several.plain()
    made = several.made(WithoutReference(), attachment=attachment)
    assert torch.equal(made.latents[:, :, :16], plain.latents[:, :, :16])
    assert distance(made, plain) > 1e-3
    assert made.result.reference_tokens_per_step == (0, 0, 0)


def test_without_guidance_too(runs):
    """The suite changes guided runs, whose two branches are rows of one call."""
    plain = runs.plain()
    assert distance(runs.made(Keep(tuple(range(16)))), plain) == 0
    assert distance(runs.made(ReuseReference(refresh=1)), plain) == 0
    assert distance(runs.made(StepCache(3)), plain) == 0
    assert distance(runs.made(Merge(16)), plain) == 0
    for arm in (ReuseReference(), StepCache(2), Merge(8, start=1), Keep((0, 3))):
        nnsight, hooks = (runs.made(arm, attachment=each) for each in ("nnsight", "hooks"))
        assert distance(nnsight, hooks) == 0
        assert distance(nnsight, plain) > 1e-4


def test_activations_inside_attention_can_be_put_back(runs):
    kinds = ("keys", "values", "attention output")
    found = runs.probe.record(**runs.call, tokens="all", what=kinds, progress=False)
    assert found.positions.tolist() == list(range(64))
    plain = runs.plain()
    # another order of the same sums
    assert distance(runs.made(Patch(found)), plain) < 1e-5
    reference = runs.probe.record(**runs.call, tokens="reference", what="keys", progress=False)
    span = runs.probe.layout(tiny.tiny_image(), "a fox", **tiny_ltx.SETTINGS).span("reference")
    for place, values in reference.values.items():
        assert torch.equal(values, found.values[place][:, span])


def test_hidden_states_are_those_of_the_tokens_that_they_are_said_to_be_of(runs):
    """References stand first in a block, and last in everything that is recorded."""
    blocks, seen = runs.probe.pipe.transformer.transformer_blocks, {}

    def before(module, positional, given):
        seen.setdefault("embeddings", given["hidden_states"])

    def after(module, positional, made):
        seen.setdefault("residual", made)

    hooks = [
        blocks[0].register_forward_pre_hook(before, with_kwargs=True),
        blocks[1].register_forward_hook(after),
    ]
    try:
        plain = runs.plain()
    finally:
        for hook in hooks:
            hook.remove()
    kinds = ("residual", "embeddings")
    found = runs.probe.record(**runs.call, tokens="all", what=kinds, progress=False)
    for what, block in (("residual", 1), ("embeddings", 0)):
        states = next(
            each
            for place, each in found.values.items()
            if (place.what, place.step, place.block) == (what, 0, block)
        )
        assert torch.equal(states, seen[what].roll(-16, dims=1))
    assert distance(runs.made(Patch(found)), plain) == 0
    other = Runs(runs.case, probe_of=runs.probe, image=tiny.tiny_image().rotate(180))
    foreign = runs.probe.record(**other.call, tokens="reference", what="residual", progress=False)
    assert distance(runs.made(Patch(foreign)), plain) > 1e-4
    call = {**runs.call, "interventions": [Similarity(blocks="all")], "progress": False}
    cosines = runs.probe.generate(**call).similarity[0]
    states = seen["residual"].double()
    mean = states[:, 16:].mean(1, keepdim=True)
    expected = torch.nn.functional.cosine_similarity(mean, states[:, :16], dim=-1)
    np.testing.assert_allclose(cosines[:, 1], expected, rtol=1e-4, atol=1e-6)


def test_hidden_states_of_guided_runs_are_refused(runs):
    guided = {**runs.call, **GUIDED, "progress": False}
    with pytest.raises(UnsupportedPipelineError, match="rows of one call"):
        runs.probe.record(**guided, what="residual")


def test_the_modulated_input_is_what_the_first_attention_sees(probe):
    transformer = probe.pipe.transformer
    inputs = inputs_of(probe, tiny.tiny_image(), **GUIDED)
    seen = []
    hook = transformer.transformer_blocks[0].attn1.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["hidden_states"]), with_kwargs=True
    )
    layout = probe.family.observed_layout(inputs)
    with torch.no_grad():
        transformer(**inputs)
        hook.remove()
        for given in (inputs, probe.family.keep_reference_tokens(inputs, layout, (4,))):
            found = probe.family.modulated_input(given, layout)
            torch.testing.assert_close(found, seen[0][:, 16:])


@pytest.mark.parametrize("method", ["recast", "reuse+step-cache"])
@pytest.mark.parametrize("guidance", [{}, GUIDED], ids=["plain", "guided"])
def test_an_accelerated_pipeline_makes_what_the_probe_makes(probe, method, guidance):
    layout = probe.layout(tiny.tiny_image(), "a fox", **tiny_ltx.SETTINGS)
    budget = rp.budget.Fixed(8) if method == "recast" else None
    arms = rp.interventions.methods.method(method, budget, layout, blocks="all")
    call = {**tiny_ltx.SETTINGS, **guidance, "steps": 4}

    def frames(image):
        return probe.pipe(**probe.pipeline_arguments(image, "a fox", **call)).frames[0]

    traced = probe.generate(tiny.tiny_image(), "a fox", interventions=arms, progress=False, **call)
    with rp.accelerate(probe.pipe, interventions=arms) as accelerated:
        live = frames(tiny.tiny_image())
        counts = accelerated.report["reference_tokens_per_step"]
        without = frames(None)
        assert accelerated.report is None
    assert counts == list(traced.reference_tokens_per_step)
    for one, other in zip(live, traced.layers[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert (np.asarray(live[4]) != np.asarray(frames(tiny.tiny_image())[4])).any()
    np.testing.assert_array_equal(without[4], frames(None)[4])


def test_a_result_holds_the_frames_and_the_middle_one(probe, tmp_path):
    result = probe.generate(tiny.tiny_image(), "a fox", **RUN)
    arguments = {name: value for name, value in RUN.items() if name != "progress"}
    plain = probe.pipe(**probe.pipeline_arguments(tiny.tiny_image(), "a fox", **arguments)).frames
    assert [len(each) for each in result.layers] == [9]
    for found, expected in zip(result.layers[0], plain[0], strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(result.image, plain[0][4])
    for found, frame in zip(result.by_layer(), (0, 4, 8), strict=True):
        np.testing.assert_array_equal(found, plain[0][frame])
    with pytest.raises(InputError, match="no image 1"):
        result.by_layer(1)
    (file,) = result.save(tmp_path / "fox.png")
    assert file.name == "fox.png"
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    assert names == ["fox.png", *(f"fox_frame_{number}.png" for number in range(9))]
    np.testing.assert_array_equal(Image.open(tmp_path / "fox_frame_8.png"), plain[0][8])
    facts = json.loads((tmp_path / "fox_frame_8.json").read_text())
    assert facts["frame"] == 8
    assert facts["layout"]["generation"] == [4, 4, True, 3]


def test_maps_say_the_frame_of_a_query(probe):
    maps = probe.attention_maps(tiny.tiny_image(), "a fox", **RUN)
    frame, row, column = Grid(4, 4, layers=3).coordinates()
    for name, expected in (("layer", frame), ("row", row), ("column", column)):
        np.testing.assert_array_equal(maps.data[f"query_{name}"], expected)
    second = probe.attention_maps(tiny.tiny_image(), "a fox", queries=range(16, 32), **RUN)
    assert set(second.data["query_layer"].values) == {1}
    np.testing.assert_array_equal(second.data, maps.data.sel(query=range(16, 32)))
    place = rp.correspondence(second).place
    np.testing.assert_allclose(place[5], [(1 + 0.5) / 4, (1 + 0.5) / 4])
    with pytest.raises(InputError, match="3 layers of 4 x 4"):
        probe.attention_maps(tiny.tiny_image(), "a fox", queries=np.ones((4, 4)), **RUN)


def test_there_is_no_text_in_the_attention_that_is_read(probe):
    profile = probe.profile(tiny.tiny_image(), "a fox", **RUN)
    assert profile.layout.text == 0
    mass = profile.mass.sel(query_group="generation")
    np.testing.assert_array_equal(mass.sel(key_group="text"), 0)
    np.testing.assert_allclose(mass.sum("key_group"), 1, atol=1e-6)
    assert profile.mass.sel(query_group="text").isnull().all()
    for diagnostic in (rp.skew, rp.entropy):
        numbers = diagnostic(profile).summary().values()
        assert all(np.isfinite(number) for number in numbers)


def test_a_profile_of_a_video_is_read_from_its_file_as_it_was(probe, tmp_path):
    profile = probe.profile(tiny.tiny_image(), "a fox", **RUN)
    loaded = rp.AttentionProfile.load(profile.save(tmp_path / "video.nc"))
    assert loaded.layout == profile.layout
    np.testing.assert_array_equal(loaded.score, profile.score)


def test_a_mask_lies_on_the_reference_and_not_on_the_video(probe):
    mask = np.zeros((64, 96))
    mask[:32, :48] = 1
    image = tiny.tiny_image(96, 64)
    grid = probe.reference_mask(mask, image, **tiny_ltx.SETTINGS)
    # the pipeline scales a reference to the video's size, and cuts nothing off
    np.testing.assert_array_equal(grid, np.add.outer([0, 0, 2, 2], [0, 0, 2, 2]) == 0)
    profile = probe.profile(image, "a fox", **RUN)
    scores = profile.score.mean(("step", "block", "head")).values.reshape(4, 4)
    found = rp.overlap(profile, grid).summary()
    assert found["mass_share"] == pytest.approx(scores[grid].sum() / scores.sum(), rel=1e-6)


def test_text_that_is_elsewhere_is_neither_cut_nor_recorded(probe):
    def refused(kind, match, method, **settings):
        with pytest.raises(kind, match=match):
            getattr(probe, method)(tiny.tiny_image(), "a fox", **{**RUN, **settings})

    cut = [Knockout("generation", "text")]
    refused(InputError, "attends to its text elsewhere", "generate", interventions=cut)
    padding = [Knockout("generation", "padding")]
    refused(UnsupportedPipelineError, "Padding", "generate", interventions=padding)
    refused(InputError, "no text tokens", "record", tokens="text")
    refused(InputError, "'text'.*generation, reference", "profile", queries="text")
    with pytest.raises(InputError, match=r"text tokens .*ltx-condition"):
        rp.path_profiles(probe, tiny.tiny_image(), "a fox", **RUN)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"frame_index": 0}, "frame_index=0.*num_frames - 1"),
        ({"frame_index": None}, "frame_index=0"),
        ({"frame_index": [4, 8]}, "2 entries for 1"),
        ({"frame_index": -1}, "frame_index.*-1"),
        ({"frame_index": 2.5}, r"frame_index.*2\.5"),
        ({"frame_index": True}, "frame_index.*True"),
        ({"num_frames": 0}, "num_frames.*0"),
        ({"frame_rate": 0}, "frame_rate.*0"),
        ({"height": 70}, "divisible by 32.*70"),
        ({"strength": 0.5}, "strength"),
        ({"denoise_strength": 0.5}, "denoise_strength"),
        ({"latents": torch.zeros(1, 8, 3, 4, 4)}, "latents"),
        ({"timesteps": [1000.0, 500.0]}, "timesteps"),
        ({"guidance_rescale": 0.7}, "guidance_rescale"),
        ({"video": [tiny.tiny_image()]}, "'video'.*image"),
        ({"conditions": []}, "'conditions'.*frame_index"),
        ({"num_videos_per_prompt": 2}, "num_videos_per_prompt.*seeds"),
    ],
)
def test_settings_that_are_refused_by_name(probe, settings, match):
    with pytest.raises(InputError, match=match):
        probe.generate(tiny.tiny_image(), "a fox", **{**RUN, **settings})


def test_prompts_of_one_run_have_no_reference(probe):
    made = probe.generate(None, ["a fox", "snow"], **RUN)
    assert [len(frames) for frames in made.layers] == [9, 9]
    for prompt, image in zip(["a fox", "snow"], made.images, strict=True):
        alone = probe.generate(None, prompt, **RUN).image
        difference = np.asarray(image, np.int16) - np.asarray(alone, np.int16)
        assert np.abs(difference).max() <= 1
    with pytest.raises(InputError, match="one prompt at a time"):
        probe.generate(tiny.tiny_image(), ["a fox", "snow"], **RUN)


def test_a_prompt_that_is_too_long_is_told(probe):
    with pytest.warns(UserWarning, match="prompt 0 is too long for tokenizer: 7"):
        result = probe.generate(tiny.tiny_image(), "a red fox of snow", **RUN)
    assert "7 of its tokens" in result.provenance["remarks"][0]


def test_embeddings_are_the_prompt_under_its_mask(probe):
    with torch.no_grad():
        states, mask, *_ = probe.pipe.encode_prompt(
            "fox", do_classifier_free_guidance=False, max_sequence_length=12
        )
    assert not mask.all()
    image, given = tiny.tiny_image(), {"prompt_embeds": states, "prompt_attention_mask": mask}
    made = probe.generate(image, None, **given, **RUN)
    np.testing.assert_array_equal(made.image, probe.generate(image, "fox", **RUN).image)
    with pytest.raises(InputError, match="prompt_attention_mask"):
        probe.generate(image, None, prompt_embeds=states, **RUN)
    wrong = {**given, "prompt_embeds": states[..., :8]}
    with pytest.raises(InputError, match=r"prompt_embeds.*32"):
        probe.generate(image, None, **wrong, **RUN)


def test_patches_are_refused():
    pipe = tiny_ltx.build_tiny_pipeline()
    pipe.transformer.register_to_config(patch_size=2)
    with pytest.raises(UnsupportedPipelineError, match="patch_size 1"):
        Probe(pipe)


def test_a_saved_pipeline_makes_the_same_video(probe, tmp_path):
    tiny_ltx.save_tiny_pipeline(tmp_path)
    loaded = Probe.from_pretrained(tmp_path)
    one, other = (each.generate(tiny.tiny_image(), "a fox", **RUN) for each in (probe, loaded))
    assert loaded.fingerprint == probe.fingerprint
    # weights that lie otherwise in memory may be rounded otherwise when they are multiplied
    apart = np.abs(np.asarray(one.image, int) - np.asarray(other.image, int))
    assert apart.max() <= 1
