"""FLUX.2 klein's inpainting: sizes, the further reference, and guidance by default."""

from __future__ import annotations

import numpy as np
import pytest

from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.errors import InputError
from recast_probe.interventions import Recast
from recast_probe.layout import Grid
from recast_probe.probe import Probe
from recast_probe.testing import tiny, tiny_flux2

IMAGE, MASK = tiny.tiny_image(96, 64), tiny.tiny_mask(96, 64)
OTHER = tiny.tiny_image(40, 52, seed=4)
CALL = {"prompt": "fox", "steps": 3, "seed": 3, "mask_image": MASK}


@pytest.fixture(scope="module")
def probe():
    pipe = tiny_flux2.build_klein_inpaint()
    pipe.set_progress_bar_config(disable=True)
    return Probe(pipe)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((100, 70), (4, 6)),
        ((40, 33), (2, 2)),
        ((16, 31), (1, 1)),
        # beyond a megapixel
        ((1400, 1100), (56, 72)),
        ((1025, 1025), (64, 64)),
    ],
)
def test_the_output_has_the_size_of_the_image(probe, size, grid):
    image, mask = tiny.tiny_image(*size), tiny.tiny_mask(*size)
    layout = probe.layout(image, mask_image=mask)
    assert layout.generation == Grid(*grid)
    assert layout.references == (Grid(*grid),)
    call = CALL | {"steps": 2, "strength": 0.5, "mask_image": mask, "guidance_scale": 1}
    made = probe.generate(image, **call, progress=False)
    plain = probe.pipe(**probe.pipeline_arguments(image, **call)).images[0]
    assert made.image.size == (16 * grid[1], 16 * grid[0])
    np.testing.assert_array_equal(np.asarray(made.image), np.asarray(plain))


@pytest.mark.parametrize("size", [(15, 64), (64, 15)])
def test_an_image_below_a_token_is_refused(probe, size):
    small = tiny.tiny_image(*size)
    with pytest.raises(InputError, match=rf"{size[0]} x {size[1]} .* smaller than one token"):
        probe.layout(small, mask_image=tiny.tiny_mask(*size))
    with pytest.raises(InputError, match="smaller than one token"):
        probe.layout([IMAGE, small], mask_image=MASK)


def test_a_mask_on_the_image_is_scaled_as_the_image_is(probe):
    # 100 pixels become 6 tokens of 16.7 pixels, none of which is cut off
    drawn = np.zeros((70, 100))
    drawn[:, :9] = 1
    size = tiny.tiny_image(100, 70), tiny.tiny_mask(100, 70)
    found = probe.reference_mask(drawn, size[0], mask_image=size[1])
    expected = np.zeros((4, 6), bool)
    expected[:, 0] = True
    np.testing.assert_array_equal(found, expected)


class TestTwoReferences:
    def test_the_second_is_the_pipelines_image_reference(self, probe):
        arguments = probe.pipeline_arguments([IMAGE, OTHER], **CALL)
        assert arguments["image"].size == IMAGE.size
        assert arguments["image_reference"].size == OTHER.size
        result = probe.generate([IMAGE, OTHER], **CALL, profile=True, progress=False)
        plain = np.asarray(probe.pipe(**arguments).images[0])
        np.testing.assert_array_equal(np.asarray(result.image), plain)
        assert result.image.size == IMAGE.size
        assert result.profile.layout.references == (Grid(4, 6), Grid(3, 2))
        assert [each["width"] for each in result.provenance["images"]] == [96, 40]
        alone = probe.generate(IMAGE, **CALL, progress=False).image
        assert (np.asarray(alone) != plain).any()

    def test_the_mask_is_of_the_first(self, probe):
        with pytest.raises(InputError, match=r"96 x 64 .* 40 x 52"):
            probe.layout([OTHER, IMAGE], mask_image=MASK)

    def test_accelerated(self, probe):
        recast = Recast(5, blocks="all")
        expected = probe.generate([IMAGE, OTHER], **CALL, interventions=[recast], progress=False)
        with accelerate(probe.pipe, interventions=[recast]) as accelerated:
            live = probe.pipe(**probe.pipeline_arguments([IMAGE, OTHER], **CALL)).images[0]
            assert accelerated.report["reference_tokens_per_step"] == [30, 5, 5]
        np.testing.assert_array_equal(np.asarray(live), np.asarray(expected.image))

    def test_more_and_another_way_are_refused(self, probe):
        with pytest.raises(InputError, match="one reference besides, not 3"):
            probe.layout([IMAGE, OTHER, OTHER], mask_image=MASK)
        with pytest.raises(
            InputError, match=r"'image_reference' .* image=\[repainted, reference\]"
        ):
            probe.layout(IMAGE, mask_image=MASK, image_reference=OTHER)


def test_text_as_embeddings(probe):
    prompts, empty = (
        probe.pipe.encode_prompt(each, max_sequence_length=40)[0]
        for each in (["fox", "owl"], ["", ""])
    )
    call = {name: value for name, value in CALL.items() if name != "prompt"}
    by_text = probe.generate(IMAGE, ["fox", "owl"], **call, progress=False)
    given = {"prompt_embeds": prompts, "negative_prompt_embeds": empty}
    by_embedding = probe.generate(IMAGE, None, **call, **given, progress=False)
    for one, other in zip(by_embedding.images, by_text.images, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize(
    ("distilled", "settings", "branches"),
    [
        (False, {}, ["conditional", "unconditional"]),
        (False, {"guidance_scale": 1.0}, ["conditional"]),
        (True, {}, ["conditional"]),
    ],
)
def test_guidance_is_the_pipelines_own(distilled, settings, branches):
    probe = Probe(tiny_flux2.build_klein_inpaint(is_distilled=distilled))
    profile = probe.profile(IMAGE, **CALL, **settings, progress=False)
    assert list(profile.dataset["branch"].values) == branches
    assert profile.provenance["model"]["distilled"] is distilled
