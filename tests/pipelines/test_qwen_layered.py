"""Qwen-Image-Layered's family: what it predicts, its layers, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import recast_probe as rp
from recast_probe.errors import InputError, UnsupportedPipelineError, VerificationError
from recast_probe.images.layers import composed
from recast_probe.interventions import Keep
from recast_probe.layout import Grid
from recast_probe.pipelines import find_family
from recast_probe.pipelines.loading import load_pipeline
from recast_probe.pipelines.qwen.positions import KeptShapes, positions_of_kept
from recast_probe.probe import Probe
from recast_probe.testing import tiny, tiny_qwen

RUN = {"steps": 2, "layers": 2, "progress": False}


class SeenError(Exception):
    """The transformer was called."""


@pytest.fixture(scope="module")
def probe():
    pipe = tiny_qwen.build_layered()
    pipe.set_progress_bar_config(disable=True)
    tiny_qwen.remember_encoded(pipe.vae)
    return Probe(pipe)


def first_inputs(probe, image, prompt="a fox", **settings):
    """Inputs of the transformer's first call, and the arguments of the pipeline."""
    found = {}

    def stop(module, positional, inputs):
        found.update(inputs)
        raise SeenError

    arguments = probe.pipeline_arguments(image, prompt, **settings)
    hook = probe.pipe.transformer.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        with pytest.raises(SeenError):
            probe.pipe(**arguments)
    finally:
        hook.remove()
    return found, arguments


@pytest.mark.parametrize(
    ("size", "settings", "grid"),
    [
        ((64, 64), {}, Grid(5, 5, layers=5)),
        ((96, 64), {"layers": 1}, Grid(4, 6, layers=2)),
        ((64, 64), {"layers": 3, "resolution": 1024}, Grid(8, 8, layers=4)),
    ],
)
def test_the_predicted_layout_is_the_observed_one(probe, size, settings, grid):
    image = tiny.tiny_image(*size)
    inputs, _ = first_inputs(probe, image, **settings)
    predicted = probe.layout(image, "a fox", **settings)
    assert probe.family.observed_layout(inputs) == predicted
    assert predicted.generation == grid
    assert predicted.references == (Grid(grid.rows, grid.columns),)


def test_the_text_is_the_prompt_in_its_template(probe):
    image, negative = tiny.tiny_image(), "of low quality"
    inputs, arguments = first_inputs(probe, image, negative_prompt=negative)
    embeddings = probe.family.branch_embeddings(arguments)
    torch.testing.assert_close(embeddings["conditional"], inputs["encoder_hidden_states"])
    layouts = probe.family.branch_layouts(probe.layout(image, "a fox"), arguments)
    assert {name: each.text for name, each in layouts.items()} == {
        name: each.shape[1] for name, each in embeddings.items()
    }
    ids = probe.family.branch_ids(arguments)["conditional"].tolist()
    assert probe.pipe.tokenizer.decode(ids).split("user\n")[1].startswith("a fox<|im_end|>")
    assert not probe.family.padding_tokens(arguments)["conditional"].any()
    assert probe.family.vision_tokens(arguments) == {}


def test_a_text_that_is_cut_off(probe):
    image, longest = tiny.tiny_image(), 40
    short = {**RUN, "max_sequence_length": longest, "true_cfg_scale": 3.0}
    with pytest.warns(UserWarning, match="prompt 0 is too long"):
        result = probe.generate(image, "a fox " * 9, negative_prompt="x", profile=True, **short)
    assert result.profile.layout.text == longest
    whole = probe.layout(image, "a fox " * 9).text
    assert any(f"{whole - longest} of its tokens" in each for each in result.provenance["remarks"])
    given = torch.zeros(1, longest + 1, tiny_qwen.TEXT_WIDTH)
    with pytest.raises(InputError, match=r"41 text tokens.*beyond 40"):
        probe.generate(image, "a fox", negative_prompt_embeds=given, **short)


@pytest.mark.parametrize("sigmas", [None, [1.0, 0.6, 0.3]])
@pytest.mark.parametrize("resolution", [640, 1024])
def test_the_predicted_schedule_is_the_schedulers(probe, sigmas, resolution):
    image = tiny.tiny_image()
    settings = {"steps": 3, "layers": 1, "sigmas": sigmas, "resolution": resolution}
    profile = probe.profile(image, "a fox", progress=False, blocks=[0], **settings)
    scheduler = probe.pipe.scheduler
    np.testing.assert_allclose(profile.dataset["timestep"], scheduler.timesteps, rtol=1e-6)
    np.testing.assert_allclose(profile.dataset["sigma"], scheduler.sigmas[:3], atol=1e-7)


def test_a_result_holds_the_layers_and_what_they_compose(probe, tmp_path):
    image = tiny.tiny_image()
    result = probe.generate(image, "a fox", **RUN)
    plain = probe.pipe(**probe.pipeline_arguments(image, "a fox", steps=2, layers=2)).images
    assert [len(each) for each in result.layers] == [2]
    for found, expected in zip(result.layers[0], plain[0], strict=True):
        assert found.mode == "RGBA"
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(result.image, composed(plain[0]))
    assert result.image.mode == "RGB"
    whole, *layers = result.by_layer()
    np.testing.assert_array_equal(whole, result.image)
    assert len(layers) + 1 == probe.layout(image, "a fox", layers=2).generation.layers
    (path,) = result.save(tmp_path / "fox.png")
    assert path.name == "fox.png"
    assert sorted(each.name for each in tmp_path.glob("*.png")) == [
        "fox.png",
        "fox_layer_0.png",
        "fox_layer_1.png",
    ]
    np.testing.assert_array_equal(Image.open(tmp_path / "fox_layer_1.png"), plain[0][1])
    assert json.loads((tmp_path / "fox_layer_1.json").read_text())["layer"] == 1
    assert "layer" not in json.loads((tmp_path / "fox.json").read_text())


def test_layers_lie_over_one_another_on_white():
    half = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    half.putpixel((0, 0), (0, 0, 255, 255))
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 51))
    found = np.asarray(composed([half, clear]))
    np.testing.assert_allclose(found[0], [[51, 0, 204], [255, 204, 204]], atol=1)


def test_kept_tokens_keep_their_positions(probe):
    inputs, _ = first_inputs(probe, tiny.tiny_image(), layers=2)
    family, embedding = probe.family, probe.pipe.transformer.pos_embed
    kept = [0, 7, 24]
    edited = family.keep_reference_tokens(inputs, family.observed_layout(inputs), kept)
    rows = [*range(75), *(75 + each for each in kept)]
    assert edited["img_shapes"].rows.tolist() == rows
    assert list(edited["img_shapes"]) == [[(1, 5, 5), (1, 1, 53)]]
    with positions_of_kept(embedding):
        found, text = embedding(edited["img_shapes"], max_txt_seq_len=9)
        whole, same = embedding(inputs["img_shapes"], max_txt_seq_len=9)
    assert torch.equal(found, whole[rows])
    assert torch.equal(text, same)
    # layers differ in the first number alone, and the reference in that from all of them
    frame = probe.pipe.transformer.pos_embed.axes_dim[0] // 2
    parts = whole.split(25)
    assert all(torch.equal(part[:, frame:], parts[0][:, frame:]) for part in parts)
    assert len({tuple(part[3, :frame].tolist()) for part in parts}) == 4


def test_rows_and_columns_of_a_query_are_those_in_its_layer(probe):
    image = tiny.tiny_image(96, 64)
    maps = probe.attention_maps(image, "a fox", [0, 23, 24, 50], blocks=[1], **RUN)
    assert maps.data["query_row"].values.tolist() == [0, 3, 0, 0]
    assert maps.data["query_column"].values.tolist() == [0, 5, 0, 2]
    found = rp.correspondence(maps)
    assert (found.place.values[0] == found.place.values[2]).all()
    assert found.place.values.max() < 1
    figure = rp.figures.plot_correspondence(found)
    assert any("3 layers" in text.get_text() for text in figure.texts)
    with pytest.raises(InputError, match="3 layers of 4 x 6"):
        probe.attention_maps(image, "a fox", np.ones((4, 6), bool), blocks=[1], **RUN)


def test_a_saved_pipeline_is_loaded(probe, tmp_path):
    tiny_qwen.build_layered().save_pretrained(tmp_path)
    loaded = Probe(load_pipeline(tmp_path))
    loaded.pipe.set_progress_bar_config(disable=True)
    assert loaded.fingerprint == probe.fingerprint
    image = tiny.tiny_image()
    kept = [Keep((1, 2))]
    one, other = (
        each.generate(image, "a fox", interventions=kept, **RUN) for each in (loaded, probe)
    )
    assert one.reference_tokens_per_step == (2, 2)
    np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize(
    ("prompt", "settings", "message"),
    [
        ("", {}, "prompt is empty.*get_image_caption"),
        (" ", {}, "prompt is empty"),
        (["fox", "elk"], {}, "one prompt at a time, not 2"),
        (None, {"prompt_embeds": torch.zeros(1, 9, 32)}, "prompt_embeds.*caption"),
        ("fox", {"use_en_prompt": True}, "use_en_prompt has no effect"),
        ("fox", {"layers": 0}, "layers.*0"),
        ("fox", {"resolution": 512}, "640 or 1024, not 512"),
        ("fox", {"height": 512}, "no argument 'height'"),
    ],
)
def test_what_is_refused(probe, prompt, settings, message):
    with pytest.raises(InputError, match=message):
        probe.pipeline_arguments(tiny.tiny_image(), prompt, **settings)


def test_pictures_and_pipelines_that_are_refused(probe):
    with pytest.raises(InputError, match="smaller than one token"):
        probe.layout(tiny.tiny_image(400, 8))
    parts = tiny_qwen.build_tiny_pipeline().components
    with pytest.raises(UnsupportedPipelineError, match="QwenEmbedLayer3DRope"):
        find_family(type(probe.pipe)(**parts))
    inputs, _ = first_inputs(probe, tiny.tiny_image(), layers=1)
    other = {**inputs, "img_shapes": [[(1, 5, 5), (1, 1, 25), (1, 5, 5)]]}
    with pytest.raises(VerificationError, match="5 x 5, 1 x 25"):
        probe.family.observed_layout(other)


def test_shapes_where_one_image_is_generated():
    shapes = KeptShapes([[(1, 2, 2), (1, 3, 3)]] * 2, torch.tensor([0, 1, 2, 3, 5, 8]))
    assert list(shapes) == [[(1, 2, 2), (1, 1, 2)]] * 2
