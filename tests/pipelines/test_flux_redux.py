"""What the conformance suite does not ask of FLUX.1 Redux, whose reference is among the text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.experiments.drift import drift
from recast_probe.experiments.text_lens import text_lens
from recast_probe.interventions import Knockout, Recast, Record, Similarity, TokenCache, Weigh
from recast_probe.interventions.base import RunContext
from recast_probe.interventions.token_cache import CachedRun
from recast_probe.layout import Grid, TokenLayout
from recast_probe.probe import Probe
from recast_probe.profiles.activations import HookPoint
from recast_probe.testing import tiny, tiny_redux

IMAGE = tiny.tiny_image(96, 64)
SIZE = {"height": 48, "width": 64, "max_sequence_length": 12}
RUN = {"image": IMAGE, "prompt": "a cat", "steps": 2, "seed": 3, **SIZE}
TEXT, GENERATION, REFERENCE = slice(12), slice(12, 24), slice(24, 40)


@pytest.fixture(scope="module")
def probe():
    return Probe(tiny_redux.build_tiny_pipeline())


@pytest.mark.parametrize("size", [(64, 64), (200, 20), (1, 1)])
def test_tokens_are_a_square_grid_whatever_the_picture(probe, size):
    layout = probe.layout(tiny.tiny_image(*size), **SIZE)
    assert layout == TokenLayout(12, Grid(3, 4), (Grid(*tiny_redux.GRID),))
    assert layout.placed


def test_each_token_stands_for_its_patch_and_the_rest_for_none(probe):
    """Painted into the picture at SigLIP's own size, where nothing is resized."""
    pipe, side, patch = probe.pipe, tiny_redux.IMAGE_SIDE, tiny_redux.PATCH
    picture = tiny.tiny_image(side, side)

    def patches(image):
        pixels = pipe.feature_extractor.preprocess(image, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            return pipe.image_encoder.embeddings(pixels)[0]

    def changed_by(left, top, width, height):
        painted = picture.copy()
        painted.paste((255, 0, 0), (left, top, left + width, top + height))
        moved = (patches(painted) - patches(picture)).abs().amax(dim=1) > 0
        return moved.nonzero().flatten().tolist()

    assert changed_by(2 * patch, patch, patch, patch) == [1 * 4 + 2]
    assert changed_by(0, 3 * patch, patch, patch) == [3 * 4]
    assert changed_by(4 * patch, 0, 2, side) == []
    assert changed_by(0, 4 * patch, side, 2) == []
    assert probe.family.crop_box(picture, {}) == (0, 0, 32 / 34, 32 / 34)


def test_masks_leave_out_what_no_token_sees(probe):
    picture = tiny.tiny_image(340, 34)
    mask = np.zeros((34, 340))
    mask[:8, 80:160] = 1  # the second of four patches of 80 x 8 pixels
    found = probe.reference_mask(mask, picture, **SIZE)
    assert np.argwhere(found).tolist() == [[0, 1]]
    mask = np.zeros((34, 340))
    mask[:, 320:] = 1
    with pytest.raises(InputError, match="no token inside, of 16"):
        probe.reference_mask(mask, picture, **SIZE)


def test_states_are_recorded_in_the_order_of_the_layout(probe):
    kinds = ("embeddings", "residual")
    seen = {}
    blocks = probe.family.block_modules()

    def keep(block):
        def hook(_, __, output):
            text, image = output
            seen.setdefault(block, torch.cat([text[:, :12], image, text[:, 12:]], dim=1))

        return hook

    handles = [each.register_forward_hook(keep(n)) for n, each in enumerate(blocks)]
    whole = probe.record(**RUN, what=kinds, tokens="all", record_steps=0, progress=False)
    for each in handles:
        each.remove()
    for block in range(len(blocks)):
        found = whole.select(HookPoint("residual", "conditional", 0, block), np.arange(40))
        assert torch.equal(found, seen[block])
    for group, span in (("text", TEXT), ("generation", GENERATION), ("reference", REFERENCE)):
        part = probe.record(**RUN, what=kinds, tokens=group, record_steps=0, progress=False)
        for kind in kinds:
            point, rows = HookPoint(kind, "conditional", 0, 0), np.arange(40)[span]
            assert torch.equal(part.select(point, rows), whole.select(point, rows))


def test_similarity_compares_generation_with_reference(probe):
    seen = {}
    blocks = probe.family.block_modules()

    def keep(block):
        return lambda _, __, output: seen.setdefault(block, output)

    handles = [each.register_forward_hook(keep(n)) for n, each in enumerate(blocks)]
    found = probe.generate(**RUN, interventions=[Similarity("all")], progress=False)
    for each in handles:
        each.remove()
    for block, (text, image) in seen.items():
        expected = functional.cosine_similarity(image.mean(1, keepdim=True), text[:, 12:], dim=-1)
        np.testing.assert_allclose(found.similarity[0][:, block], expected, atol=1e-6)
    cosine = Recast(5, ranking="cosine", blocks="all")
    result = probe.generate(**RUN, interventions=[cosine], progress=False)
    assert result.reference_tokens_per_step == (16, 5)


def transformer_inputs():
    generator = torch.Generator().manual_seed(0)
    return {
        "hidden_states": torch.randn(1, 12, 16, generator=generator),
        "encoder_hidden_states": torch.randn(1, 28, 32, generator=generator),
        "pooled_projections": torch.randn(1, 32, generator=generator),
        "timestep": torch.rand(1, generator=generator),
        "guidance": torch.full((1,), 2.5),
        "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(3.0), torch.arange(4.0)),
        "txt_ids": torch.zeros(28, 3),
    }


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("score", ["key_norm", "value_norm"])
def test_cached_tokens_are_the_generations(probe, score, fused):
    """A cached step on the same inputs repeats the full one, and norms are of the right tokens."""
    layout = TokenLayout(12, Grid(3, 4), (Grid(4, 4),))
    run = RunContext(layout, np.arange(3.0), np.arange(3.0), probe.block_kinds)
    settings = TokenCache(interval=3, fresh_share=0.5, score=score, first_full=1)
    cache = CachedRun(settings, run, probe.family.image_stream)
    transformer, projected = probe.pipe.transformer, {}
    part = "to_k" if score == "key_norm" else "to_v"
    attention = [each.attn for each in probe.family.block_modules()]
    handles = [
        getattr(each, part).register_forward_hook(
            lambda _, __, output, n=n: projected.setdefault(n, output)
        )
        for n, each in enumerate(attention)
    ]
    if fused:
        for each in attention:
            each.fuse_projections()
    with torch.no_grad(), probe.family.cached_blocks(cache):
        outputs = []
        for step in range(3):
            cache.begin_call(step, "conditional", layout)
            outputs.append(transformer(**transformer_inputs()).sample)
            if step == 0:
                importance = [cache.features(n).importance for n in range(len(attention))]
    for each in handles:
        each.remove()
    for each in attention if fused else ():
        each.unfuse_projections()
    for step in (1, 2):
        np.testing.assert_allclose(outputs[step], outputs[0], atol=1e-5)
    # fused projections have no outputs of their own to compare with
    assert len(projected) == (0 if fused else len(attention))
    for block, found in enumerate(importance if projected else ()):
        norms = projected[block].unflatten(-1, (-1, tiny.HEAD_DIMENSION)).norm(dim=-1).mean(-1)
        if norms.shape[1] > 12:
            norms = torch.cat([norms[:, :12], norms[:, -12:], norms[:, 12:-12]], dim=1)
        np.testing.assert_allclose(found, norms, rtol=1e-5)


def test_parts_of_the_text_are_the_text_alone(probe):
    runs = [
        probe.generate(**RUN, interventions=arms, progress=False).image
        for arms in (
            [],
            [Knockout("padding", "generation"), Knockout("prompt", "generation")],
            [Knockout("text", "generation")],
        )
    ]
    plain, parts, whole = map(np.asarray, runs)
    np.testing.assert_array_equal(parts, whole)
    assert (parts != plain).any()


def test_weights_act_on_the_reference_alone(probe):
    """A weight of nothing is a cut."""
    arms = ([], [Weigh("reference", 0, mode="bias")], [Knockout("reference", "generation")])
    plain, light, cut = (
        np.asarray(probe.generate(**RUN, interventions=arm, progress=False).image, int)
        for arm in arms
    )
    assert np.abs(light - cut).max() <= 1
    assert np.abs(light - plain).max() > 1


def test_the_text_after_the_last_block_shows_nothing_in_the_lens(probe):
    """The pipeline does not read it; what enters the first block has not seen the picture."""
    lens = text_lens(probe, IMAGE, "a cat", blocks=[1, 4], steps=2, progress=False, **SIZE)
    change = lens.change()
    assert float(change[0, 0]) > 0
    assert float(change[1, 0]) == 0


def test_drift_is_that_of_the_references_keys(probe):
    found = drift(probe, IMAGE, "a cat", steps=2, seed=3, progress=False, **SIZE)
    keys = probe.record(**RUN, what="keys", tokens="reference", progress=False)
    for block in range(len(probe.block_kinds)):
        old, new = (
            keys.select(HookPoint("keys", "conditional", step, block), np.arange(40)[REFERENCE])
            for step in (0, 1)
        )
        expected = float((old - new).norm() / new.norm())
        error = found.errors["key"].sel(step=1, block=block)
        np.testing.assert_allclose(error.squeeze(), expected, rtol=1e-5)


def test_scaled_branches_are_told_apart(probe):
    """The scaled text is nearer to the unscaled one of the other branch than to its own."""
    scale, given = 0.25, probe.pipe.encode_prompt("a cat", max_sequence_length=12)
    text, pooled = (each.detach() for each in given[:2])
    embeddings = {"prompt_embeds": text, "pooled_prompt_embeds": pooled}
    negative = {"negative_prompt_embeds": text * scale, "negative_pooled_prompt_embeds": pooled}
    call = RUN | {"prompt": None, **embeddings, "prompt_embeds_scale": scale, "progress": False}
    guided = probe.profile(**call, **negative, true_cfg_scale=2.0)
    alone = probe.profile(**call, profile_steps=0)
    found, expected = (
        each.dataset["score"].sel(branch="conditional", step=0) for each in (guided, alone)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert guided.provenance["arguments"]["prompt_embeds_scale"] == scale


def test_what_is_refused(probe):
    given = probe.pipe.encode_prompt("snow", max_sequence_length=8)
    negative = {"negative_prompt_embeds": given[0], "negative_pooled_prompt_embeds": given[1]}
    negative = {name: each.detach() for name, each in negative.items()}
    # without a picture the pipeline takes texts of two lengths
    guided = RUN | {"image": None, "true_cfg_scale": 2.0, **negative}
    assert probe.generate(**guided, progress=False).image.size == (64, 48)
    for settings, message in (
        ({"prompt_embeds_scale": float("nan")}, "prompt_embeds_scale"),
        ({"true_cfg_scale": 2.0, **negative}, "12 text tokens and the negative prompt 8"),
        ({"image": [IMAGE, IMAGE]}, "one reference image, not 2"),
        ({"ip_adapter_image": IMAGE}, "no argument 'ip_adapter_image'"),
        ({"num_images_per_prompt": 2}, "several calls with different seeds"),
        ({"max_sequence_length": 513}, "513 is beyond the 512"),
    ):
        with pytest.raises(InputError, match=message):
            probe.generate(**RUN | settings, progress=False)


def test_a_prior_that_sees_the_picture_otherwise_is_refused():
    other = {"height": 32, "width": 34}
    cropped = SiglipImageProcessorPil(size={"height": 34, "width": 34}, do_center_crop=True)
    for processor, message in (
        (SiglipImageProcessorPil(size=other), "size 34 x 34"),
        (SiglipImageProcessorPil(size={"shortest_edge": 34}), "size 34 x 34"),
        (cropped, "do_center_crop"),
    ):
        pipe = tiny_redux.build_tiny_pipeline()
        pipe.register_modules(feature_extractor=processor)
        with pytest.raises(UnsupportedPipelineError, match=message):
            Probe(pipe)
    pipe = tiny_redux.build_tiny_pipeline()
    pipe.image_encoder.config.patch_size = [8, 8]
    with pytest.raises(UnsupportedPipelineError, match="square images and patches"):
        Probe(pipe)
    pipe.register_modules(image_embedder=None)
    with pytest.raises(UnsupportedPipelineError, match="image_embedder"):
        Probe(pipe)


def test_record_is_what_it_was_without_a_reference(probe):
    """An image of the text alone has no tokens of a reference, and its states are whole."""
    probe.generate(**RUN, progress=False)  # the last call had an image
    alone = {name: each for name, each in RUN.items() if name != "image"}
    record = [Record("residual", "text", steps=0)]
    result = probe.generate(None, **alone, interventions=record, progress=False)
    point = HookPoint("residual", "conditional", 0, 0)
    assert result.activations.select(point, np.arange(12)).shape == (1, 12, 32)
