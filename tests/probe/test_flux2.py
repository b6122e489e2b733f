"""FLUX.2 and klein under the probe: the same image, and the attention that they compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import recast_probe as rp
from recast_probe.layout import Grid
from recast_probe.testing import tiny

STEPS = 2
TWO = [tiny.tiny_image(), tiny.tiny_image(100, 70, seed=4)]


def test_the_image_is_that_of_the_pipeline_as_its_documentation_calls_it(flux2_probe):
    for images in (TWO[1], TWO):
        result = flux2_probe.generate(images, "a red fox", STEPS, profile=True, progress=False)
        own = flux2_probe.pipe(
            image=images,
            prompt="a red fox",
            num_inference_steps=STEPS,
            generator=torch.Generator().manual_seed(0),
            max_sequence_length=result.profile.layout.text,
        )
        np.testing.assert_array_equal(np.asarray(result.image), np.asarray(own.images[0]))
    assert result.image.size == (64, 64)
    assert result.profile.layout.references == (Grid(4, 4), Grid(4, 6))


def test_both_branches_and_which_is_which(flux2_probes, monkeypatch):
    probe, settings = flux2_probes["klein"], {"steps": 1, "progress": False}
    both = probe.profile(TWO[0], "a red fox", **settings)
    one = probe.profile(TWO[0], "a red fox", guidance_scale=1.0, **settings)
    empty = probe.profile(TWO[0], "", guidance_scale=1.0, **settings)
    scores = both.dataset["score"]
    np.testing.assert_array_equal(scores.sel(branch="conditional"), one.score)
    np.testing.assert_array_equal(scores.sel(branch="unconditional"), empty.score)
    assert not np.allclose(one.score, empty.score, rtol=1e-3)
    # a pipeline that called them in the other order would still be told apart
    family = type(probe.family)
    names = family.branch_names
    monkeypatch.setattr(family, "branch_names", lambda self, given: names(self, given)[::-1])
    swapped = probe.profile(TWO[0], "a red fox", **settings).dataset["score"]
    np.testing.assert_array_equal(
        swapped.sel(branch="conditional"), scores.sel(branch="conditional")
    )


def test_the_text_lens_keeps_the_size_of_the_image(flux2_probes):
    lens = rp.text_lens(
        flux2_probes["flux2"],
        TWO[1],
        "a red fox",
        steps=1,
        blocks=[0, 4],
        block_window=2,
        progress=False,
    )
    assert lens.without.size == lens.full.size == (96, 64)
    (patched,) = lens.images.values()
    assert np.abs(np.asarray(patched).astype(int) - np.asarray(lens.without)).max() > 0


def test_attention_maps_and_paths(flux2_probe):
    import recast_probe as rp

    maps = flux2_probe.attention_maps(TWO, "fox", queries=[3], steps=1, progress=False)
    profile = flux2_probe.profile(TWO, "fox", steps=1, progress=False)
    assert maps.data.sizes["token"] == profile.layout.reference_tokens == 40
    both = rp.path_profiles(flux2_probe, TWO, "fox", steps=1, progress=False)
    np.testing.assert_array_equal(both[0].score, profile.score)


def test_studies_of_causes(flux2_probe):
    from recast_probe.experiments.attribution import attribution
    from recast_probe.experiments.causal_map import causal_map
    from recast_probe.interventions import Knockout, Patch

    settings = {"steps": 1, "progress": False}

    def brightness(image) -> float:
        return float(np.asarray(image).mean())

    found = attribution(flux2_probe, TWO, "fox", brightness, blocks=[1, 3], **settings)
    whole = flux2_probe.generate(TWO, "fox", **settings).image
    cut = [Knockout("reference", "generation", blocks=3)]
    made = flux2_probe.generate(TWO, "fox", interventions=cut, **settings).image
    effect = brightness(whole) - brightness(made)
    assert float(found.data["effect"].sel(block=3)) == pytest.approx(effect)
    other = tiny.tiny_image(seed=9)
    found = causal_map(
        flux2_probe, TWO[0], "fox", other, blocks=[2], scores={"mean": brightness}, **settings
    )
    source = flux2_probe.record(other, "fox", ("keys", "values"), blocks=2, **settings)
    patched = flux2_probe.generate(TWO[0], "fox", interventions=[Patch(source)], **settings)
    assert float(found.data["mean"].sel(block="2", step="0")) == brightness(patched.image)
