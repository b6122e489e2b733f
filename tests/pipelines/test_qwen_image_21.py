"""Qwen-Image 2.1: where its tokens stand, with a cache and without, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import QwenImage21Pipeline
from diffusers.models.transformers.transformer_qwenimage21 import (
    QwenImage21FlexAttnProcessor,
    apply_rotary_emb_qwen,
)
from PIL import Image

import recast_probe as rp
from recast_probe.errors import InputError, UnsupportedPipelineError, VerificationError
from recast_probe.interventions import (
    Keep,
    Knockout,
    Patch,
    Prune,
    Recast,
    Record,
    ReuseReference,
    Similarity,
    StepCache,
    Weigh,
    WithoutReference,
)
from recast_probe.layout import Grid
from recast_probe.pipelines import find_family
from recast_probe.profiles.activations import HookPoint
from recast_probe.selection.baselines import RandomPerStep
from recast_probe.testing import conformance, tiny, tiny_qwen21
from recast_probe.testing.conformance.case import Runs, assert_same, distance

SIZE = tiny_qwen21.SIZE
CASES = {case.name: case for case in conformance.supported_cases()}
CASE = CASES["QwenImage21Pipeline"]
UNCACHED = replace(CASE, name="without a cache", settings={**CASE.settings, "use_kv_cache": False})
SHORT = {"steps": 2, "progress": False, **SIZE}


@pytest.fixture(scope="module")
def probe():
    return CASE.probe


@pytest.fixture
def two():
    return [tiny.tiny_image(), tiny.tiny_image(96, 40, seed=4)]


def all_inputs(probe, image, prompt="fox", steps=2, **settings):
    """Inputs of the transformer's calls in a run of a probe's pipeline."""
    found = []
    hook = probe.pipe.transformer.register_forward_pre_hook(
        lambda _, __, inputs: found.append(inputs), with_kwargs=True
    )
    try:
        probe.pipe(**probe.pipeline_arguments(image, prompt, steps=steps, **settings))
    finally:
        hook.remove()
    return found


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (300, 100), (31, 90)])
@pytest.mark.parametrize("given", [{}, {"height": 70, "width": 100}])
def test_the_predicted_layout_is_the_observed_one(probe, size, given, cached):
    image = tiny.tiny_image(*size)
    settings = {"output_resolution": 96, "use_kv_cache": cached, **given}
    predicted = probe.layout(image, "a red fox", **settings)
    for inputs in all_inputs(probe, image, "a red fox", **settings):
        assert probe.family.observed_layout(inputs) == predicted
    if given:
        assert predicted.generation == Grid(4, 6)
    else:  # the output has the reference's aspect ratio
        assert predicted.references == (predicted.generation,)


def test_several_references_and_none(probe, two):
    predicted = probe.layout(two, "fox", output_resolution=64)
    assert predicted.references == (Grid(4, 4), Grid(2, 6))
    assert predicted.generation == Grid(2, 6)  # the last reference decides
    assert (
        probe.family.observed_layout(all_inputs(probe, two, output_resolution=64)[1]) == predicted
    )
    alone = probe.layout(None, "fox", output_resolution=64)
    assert alone.references == ()
    assert probe.family.observed_layout(all_inputs(probe, None, output_resolution=64)[1]) == alone
    pipe = probe.pipe
    assert alone.text == pipe.encode_prompt("fox")[0].shape[1]
    assert probe.layout(None, "", output_resolution=64).text == pipe.encode_prompt("")[0].shape[1]


def test_layouts_that_are_no_grids(probe):
    inputs = all_inputs(probe, tiny.tiny_image(), **SIZE)[0]
    for shapes in ([[(1, 2, 3), (1, 8, 7)]], [[(2, 4, 2), (1, 4, 6)]]):
        with pytest.raises(VerificationError, match="does not lay out tokens"):
            probe.family.observed_layout({**inputs, "img_shapes": shapes})


@pytest.mark.parametrize("cached", [True, False])
@torch.no_grad()
def test_scores_are_those_of_the_block_causal_attention_over_the_whole_sequence(probe, two, cached):
    """Written down anew: the sequence as the text encoder's slots have it, queries and keys of a
    call without a cache, and the mask that the model's paper gives."""
    profile = probe.profile(two, "a red fox", use_kv_cache=cached, **SHORT)
    blocks, given = probe.pipe.transformer.transformer_blocks, {}
    hooks = [
        block.attn.register_forward_pre_hook(
            lambda _, __, named, n=n: given.update({n: named}), with_kwargs=True
        )
        for n, block in enumerate(blocks)
    ]
    last = all_inputs(probe, two, "a red fox", use_kv_cache=False, **SIZE)[-1]
    for hook in hooks:
        hook.remove()
    images = [shape[1] * shape[2] for shape in last["img_shapes"][0]]
    kinds, image, left = [], -1, 0
    for slot in last["img_mask"][0].tolist():
        if slot and not left:
            image, left = image + 1, images[image + 1]
        kinds += [image] * 4 if slot else [-1]
        left -= 4 * slot
    kinds = torch.tensor(kinds)
    place = torch.arange(len(kinds))
    same = (kinds[:, None] == kinds) & (kinds >= 0)
    seen = (place[:, None] >= place) | same
    for number, block in enumerate(blocks):
        named, attention = given[number], block.attn
        query, key = (
            apply_rotary_emb_qwen(
                norm(project(named["hidden_states"]).unflatten(-1, (tiny_qwen21.HEADS, -1))),
                named["rotary_emb"],
                use_real=False,
            ).double()[0]
            for project, norm in (
                (attention.to_q, attention.norm_q),
                (attention.to_k, attention.norm_k),
            )
        )
        logits = torch.einsum("qhd,khd->hqk", query, key) / tiny_qwen21.HEAD_DIMENSION**0.5
        rows = logits.masked_fill(~seen, -torch.inf).softmax(-1)[:, kinds == 2]
        data = profile.dataset.sel(branch="conditional", step=1, block=number)
        wanted = rows[:, :, (kinds == 0) | (kinds == 1)].mean(1)
        np.testing.assert_allclose(data["score"], wanted.numpy(), rtol=1e-5)
        mass = data["mass"].sel(query_group="generation")
        for group, there in (("text", kinds < 0), ("generation", kinds == 2)):
            found = mass.sel(key_group=group)
            np.testing.assert_allclose(found, rows[:, :, there].sum(-1).mean(1), rtol=1e-5)


@pytest.mark.parametrize("name", conformance.PROPERTIES)
def test_every_property_holds_without_a_cache(name):
    found = conformance.outcome(UNCACHED, name)
    assert found == "yes" or CASE.refuses[name] in found


ARMS = {
    "kept in all steps": Keep((0, 3, 4, 9)),
    "none": WithoutReference(),
    "pruned": Prune(rp.rank.random(16, 0), 5, start=1),
    "others in every step": Prune(RandomPerStep(16, 0), 5),
    "ranked": Recast(5, blocks="all"),
    "cut": Knockout("reference", "generation", tokens=range(8), blocks=[1]),
    "weighed": Weigh("reference", 0.3),
    "skipped": StepCache(2),
}


@pytest.mark.parametrize("arm", ARMS)
def test_the_cache_changes_no_intervention(arm):
    with_it, without = Runs(CASE, more=CASE.guidance), Runs(UNCACHED, more=CASE.guidance)
    found, wanted = with_it.made(ARMS[arm]), without.made(ARMS[arm])
    assert found.result.reference_tokens_per_step == wanted.result.reference_tokens_per_step
    assert distance(found, wanted) < 1e-5
    assert distance(found, with_it.plain()) > 1e-2


def test_dropping_is_cutting_and_leaves_the_way_through_the_text_open(probe):
    runs = Runs(CASE)
    without = runs.made(WithoutReference())
    assert_same(runs.made(Knockout("reference", "generation")), without)
    other = Runs(CASE, image=CASE.image.rotate(180)).made(WithoutReference())
    assert distance(other, without) > 1e-4


def test_keys_and_values_of_the_reference_do_not_depend_on_the_step(probe):
    for cached in (True, False):
        found = rp.drift(probe, CASE.image, "fox", use_kv_cache=cached, **SHORT).summary()
        assert max(found.values()) < 1e-6
    recorded = probe.record(CASE.image, "fox", what="keys", tokens="generation", **SHORT)
    first, second = (
        recorded.select(HookPoint("keys", "conditional", step, 0), recorded.positions)
        for step in (0, 1)
    )
    assert not torch.allclose(first, second, rtol=1e-2)


def test_patched_keys_and_values():
    runs, other = Runs(CASE), Runs(CASE, image=CASE.image.rotate(180))
    kinds = ("keys", "values", "attention output")
    own, foreign = (
        each.probe.record(**each.call, what=kinds, tokens="generation", progress=False)
        for each in (runs, other)
    )
    reference = other.probe.record(**other.call, what=kinds[:2], progress=False)
    plain = runs.plain()
    assert distance(runs.made(Patch(own)), plain) < 1e-5  # summed in another order
    for source, kind in ((reference, "keys"), (reference, "values"), (foreign, "attention output")):
        assert distance(runs.made(Patch(source, kind)), plain) > 1e-4


@pytest.mark.parametrize("sigmas", [None, [1.0, 0.6, 0.3]])
def test_the_predicted_schedule_is_the_schedulers(probe, sigmas):
    profile = probe.profile(CASE.image, "fox", steps=3, progress=False, sigmas=sigmas, **SIZE)
    scheduler = probe.pipe.scheduler
    np.testing.assert_allclose(profile.dataset["timestep"], scheduler.timesteps)
    np.testing.assert_allclose(profile.dataset["sigma"], scheduler.sigmas[:3], atol=1e-7)


def test_sigmas_of_the_config_are_the_steps():
    pipe = tiny_qwen21.build_tiny_pipeline(sample_sigmas=[1.0, 0.9, 0.3])
    own, three = rp.Probe(pipe), {**SHORT, "steps": 3}
    found = own.profile(CASE.image, "fox", **three).dataset["sigma"]
    np.testing.assert_allclose(found, pipe.scheduler.sigmas[:3], atol=1e-7)
    assert not np.allclose(found, CASE.probe.profile(CASE.image, "fox", **three).dataset["sigma"])
    with pytest.raises(InputError, match=r"for 3 steps.*steps=2"):
        own.generate(CASE.image, "fox", **SHORT)
    assert own.layout(CASE.image, "fox", **SIZE).reference_tokens == 16
    given = own.profile(CASE.image, "fox", **SHORT, sigmas=[1.0, 0.6]).dataset["sigma"]
    np.testing.assert_allclose(given, pipe.scheduler.sigmas[:2], atol=1e-7)


def test_text_as_embeddings(probe):
    embeddings, _, _ = probe.pipe.encode_prompt("fox")
    found, wanted = (
        probe.generate(None, prompt, **SHORT, **given).image
        for prompt, given in ((None, {"prompt_embeds": embeddings}), ("fox", {}))
    )
    np.testing.assert_array_equal(np.asarray(found), np.asarray(wanted))
    for name in ("prompt_embeds", "negative_prompt_embeds"):
        guided = {"true_cfg_scale": 2.0, name: embeddings}
        prompt = None if name == "prompt_embeds" else "fox"
        with pytest.raises(InputError, match=rf"{name} cannot be given together with a ref"):
            probe.generate(CASE.image, prompt, **SHORT, **{"negative_prompt": None, **guided})
    with pytest.raises(InputError, match="need \\(1, 11, 32\\)"):
        probe.generate(None, None, **SHORT, prompt_embeds=embeddings[..., :16])


def test_transparent_references(probe):
    pixels = np.asarray(CASE.image.convert("RGBA")).copy()
    pixels[:32, :, 3] = 0
    clear = Image.fromarray(pixels)
    white = Image.new("RGBA", clear.size, "white")
    white.alpha_composite(clear)
    own = probe.pipe(
        image=clear,
        prompt="fox",
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        **SIZE,
    ).images[0]
    made = [np.asarray(probe.generate(each, "fox", **SHORT).image) for each in (clear, white)]
    np.testing.assert_array_equal(made[0], np.asarray(own))
    assert (made[0] != made[1]).any()


class TestWhatIsRefused:
    def test_prompts_of_several_lengths(self, probe):
        with pytest.raises(InputError, match=r"texts of a batch have 21 and 26 tokens"):
            probe.generate(CASE.image, ["fox", "two foxe"], **SHORT)
        guided = {"true_cfg_scale": 2.0, "negative_prompt": ["dim", "faded"]}
        with pytest.raises(InputError, match="texts of a batch have 20 and 23 tokens"):
            probe.generate(CASE.image, ["fox", "fox"], **SHORT, **guided)

    def test_a_prompt_that_stands_for_a_picture(self, probe):
        with pytest.raises(InputError, match="<\\|image_pad\\|>"):
            probe.generate(CASE.image, "a <|image_pad|>", **SHORT)

    @pytest.mark.parametrize(
        ("given", "reason"),
        [
            ({"output_resolution": 8}, "output_resolution=8 is below 32"),
            ({"height": 16, "width": 64}, "height=16 is below 32"),
            ({"output_resolution": 32}, "20 image tokens, and there are 8"),
            ({"output_resolution": 64.5}, "output_resolution must be a whole number"),
        ],
    )
    def test_sizes(self, probe, given, reason):
        with pytest.raises(InputError, match=reason):
            probe.layout(CASE.image, "fox", **{"height": 32, "width": 32, **given})

    @pytest.mark.parametrize(
        ("intervention", "reason"),
        [
            (ReuseReference(), "reuses their keys"),
            (Knockout("reference", "text"), "text tokens"),
            (Knockout("generation", "reference"), "reference tokens"),
            (Knockout("vision", "generation"), "parts of a picture"),
            (Record("attention output", "text"), "text tokens"),
            (Record("residual"), "hidden states"),
            (Similarity("all"), "hidden states"),
            (Recast(4, blocks="all", ranking="self-attention"), "queries='reference'"),
        ],
    )
    def test_interventions(self, probe, intervention, reason):
        with pytest.raises((InputError, UnsupportedPipelineError), match=reason):
            probe.generate(CASE.image, "fox", interventions=[intervention], **SHORT)

    def test_maps_and_profiles_of_other_queries(self, probe):
        with pytest.raises(InputError, match="queries='text'"):
            probe.profile(CASE.image, "fox", queries="text", **SHORT)
        with pytest.raises(UnsupportedPipelineError, match="text tokens"):
            probe.attention_maps(CASE.image, "fox", group="text", **SHORT)
        with pytest.raises(InputError, match="text tokens"):
            rp.path_profiles(probe, CASE.image, "fox", **SHORT)

    def test_reuse_by_accelerate(self, probe):
        before = Runs(CASE).state()
        with pytest.raises(UnsupportedPipelineError, match="method='reuse'"):
            rp.accelerate(probe.pipe)
        assert Runs(CASE).state() == before

    def test_accelerated_batches_of_several_lengths(self, probe):
        call = {"image": CASE.image, "num_inference_steps": 2, **SIZE}
        for prune in (Prune(rp.rank.random(16, 0), 4, start=1), Keep((0,))):
            with (
                rp.accelerate(probe.pipe, interventions=[prune]),
                pytest.raises(InputError, match="21 and 26 tokens"),
            ):
                probe.pipe(prompt=["fox", "two foxe"], **call)

    def test_references_that_depend_on_the_timestep(self):
        pipe = tiny_qwen21.build_tiny_pipeline()
        pipe.transformer.register_to_config(causal_condition=False)
        with pytest.raises(UnsupportedPipelineError, match="causal_condition"):
            find_family(pipe)

    def test_attention_in_one_masked_call(self):
        pipe = tiny_qwen21.build_tiny_pipeline()
        pipe.transformer.set_attn_processor(QwenImage21FlexAttnProcessor())
        with pytest.raises(UnsupportedPipelineError, match=r"QwenImage21AttnProcessor\(\)"):
            find_family(pipe)


def test_saved_and_loaded(probe, tmp_path):
    tiny_qwen21.save_tiny_pipeline(tmp_path)
    loaded = rp.Probe.from_pretrained(tmp_path)
    assert type(loaded.pipe) is QwenImage21Pipeline
    found, wanted = (
        np.asarray(each.generate(CASE.image, "fox", **SHORT).image) for each in (loaded, probe)
    )
    np.testing.assert_array_equal(found, wanted)
