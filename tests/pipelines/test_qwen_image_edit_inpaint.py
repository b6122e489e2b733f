"""Qwen-Image-Edit's inpainting: sizes, text, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.probe import Probe
from recast_probe.testing import tiny, tiny_qwen

IMAGE, MASK = tiny.tiny_image(90, 60), tiny.tiny_mask(90, 60)
CALL = {"steps": 4, "seed": 3, "mask_image": MASK}


@pytest.fixture(scope="module")
def probe():
    pipe = tiny_qwen.build_inpaint_pipeline()
    tiny_qwen.remember_encoded(pipe.vae)
    return Probe(pipe)


def embeddings(probe, *prompts):
    pictures = probe.family.scaled_for_text([IMAGE])
    return torch.cat([probe.pipe.encode_prompt(each, image=pictures)[0] for each in prompts])


@pytest.mark.parametrize(("size", "grid"), [((90, 60), (6, 9)), ((40, 96), (12, 5))])
def test_the_output_has_the_size_of_the_scaled_image(probe, size, grid):
    call = CALL | {"mask_image": tiny.tiny_mask(*size)}
    result = probe.generate(tiny.tiny_image(*size), "fox", **call, profile=True, progress=False)
    assert result.profile.layout.generation == Grid(*grid)
    assert result.profile.layout.references == (Grid(*grid),)
    assert result.image.size == (128 * grid[1], 128 * grid[0])
    assert result.provenance["text"]["conditional"]["vision_tokens"].startswith("1-")
    assert result.provenance["num_inference_steps"] == 4


def test_text_as_embeddings(probe):
    given = embeddings(probe, "fox")
    by_text = probe.generate(IMAGE, "fox", **CALL, progress=False).image
    by_embedding = probe.generate(IMAGE, None, **CALL, prompt_embeds=given, progress=False).image
    np.testing.assert_array_equal(np.asarray(by_embedding), np.asarray(by_text))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": ["fox", "owl"]}, "one prompt at a time, not 2"),
        ({"latents": torch.zeros(1, 54, 16)}, "latents cannot be given"),
        ({"masked_image_latents": torch.zeros(1)}, "masked_image_latents has no effect"),
        ({"image": [IMAGE, IMAGE]}, "takes one reference image, not 2"),
        ({"steps": 1, "strength": 1}, "steps=1"),
    ],
)
def test_what_is_refused(probe, settings, message):
    with pytest.raises(InputError, match=message):
        probe.generate(**{"image": IMAGE, "prompt": "fox", **CALL, **settings}, progress=False)


def test_embeddings_of_several_prompts_are_refused(probe):
    given = embeddings(probe, "fox", "owl")
    with pytest.raises(InputError, match="not the 2 of prompt_embeds"):
        probe.generate(IMAGE, None, **CALL, prompt_embeds=given, progress=False)


def test_the_pipeline_itself_takes_no_latents(probe):
    arguments = probe.pipeline_arguments(IMAGE, "fox", **CALL)
    with pytest.raises(ValueError, match="unpack"):
        probe.pipe(**arguments, latents=torch.zeros(1, 54, 16))
