"""What the conformance suite does not ask of inpainting: strength, masks, and what is refused."""

from __future__ import annotations

from functools import cache

import diffusers
import numpy as np
import pytest
import torch

from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.errors import InputError, VerificationError
from recast_probe.interventions import Recast
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.transformer import TransformerFamily
from recast_probe.probe import Probe
from recast_probe.testing import tiny, tiny_flux2, tiny_qwen

IMAGE, MASK = tiny.tiny_image(96, 64), tiny.tiny_mask(96, 64)
CALL = {"image": IMAGE, "prompt": "fox", "steps": 4, "seed": 3, "mask_image": MASK}
BUILDERS = {
    "kontext": tiny.build_inpaint_pipeline,
    "klein": tiny_flux2.build_klein_inpaint,
    "qwen": tiny_qwen.build_inpaint_pipeline,
}
# Qwen's scheduler makes no schedule of one step
WITH_ONE_STEP = ("kontext", "klein")


@cache
def built(name):
    pipe = BUILDERS[name]()
    pipe.set_progress_bar_config(disable=True)
    if name == "qwen":
        tiny_qwen.remember_encoded(pipe.vae)
    return Probe(pipe)


@pytest.fixture(params=list(BUILDERS))
def probe(request):
    """A probe of each pipeline; tests must leave the pipelines as they are."""
    return built(request.param)


def image_of(probe, **settings):
    return np.asarray(probe.generate(**CALL | settings, progress=False).image)


def plain_of(probe, **changed):
    return np.asarray(probe.pipe(**probe.pipeline_arguments(**CALL) | changed).images[0])


def assert_last_steps(probe, made, attachment="nnsight", **settings):
    call = CALL | settings
    plain = probe.pipe(**probe.pipeline_arguments(**call)).images[0]
    timesteps = probe.pipe.scheduler.timesteps
    result = probe.generate(**call, profile=True, attachment=attachment, progress=False)
    np.testing.assert_array_equal(np.asarray(result.image), np.asarray(plain))
    np.testing.assert_allclose(result.profile.dataset["timestep"], timesteps[-made:], rtol=1e-6)
    assert result.provenance["steps"] == made
    assert result.provenance["num_inference_steps"] == call["steps"]


@pytest.mark.parametrize("attachment", ["nnsight", "hooks"])
@pytest.mark.parametrize(
    ("steps", "strength", "made"), [(4, 0.05, 1), (4, 0.6, 3), (4, 1.0, 4), (7, 0.5, 4)]
)
def test_strength_leaves_the_last_steps(probe, attachment, steps, strength, made):
    assert_last_steps(probe, made, attachment, steps=steps, strength=strength)


@pytest.mark.parametrize("name", WITH_ONE_STEP)
def test_one_step_of_one(name):
    assert_last_steps(built(name), 1, steps=1, strength=0.3)


@pytest.mark.parametrize(("name", "made"), [("kontext", 5), ("klein", 4), ("qwen", 3)])
def test_without_a_strength_it_is_the_pipelines_own(name, made):
    probe = built(name)
    arguments = probe.pipeline_arguments(**CALL | {"steps": 5})
    del arguments["strength"]
    result = probe.generate(**CALL | {"steps": 5}, progress=False)
    assert result.provenance["steps"] == made
    np.testing.assert_array_equal(
        np.asarray(result.image), np.asarray(probe.pipe(**arguments).images[0])
    )


def test_the_accelerated_pipeline_begins_at_the_same_step(probe):
    call, recast = CALL | {"steps": 7, "strength": 0.5}, Recast(5, blocks="all")
    expected = probe.generate(**call, interventions=[recast], progress=False)
    tokens = probe.layout(IMAGE, "fox", mask_image=MASK).reference_tokens
    with accelerate(probe.pipe, interventions=[recast]) as accelerated:
        live = probe.pipe(**probe.pipeline_arguments(**call)).images[0]
        assert accelerated.report["reference_tokens_per_step"] == [tokens, 5, 5, 5]
    np.testing.assert_array_equal(np.asarray(live), np.asarray(expected.image))


@pytest.mark.parametrize(
    "mask",
    [MASK.convert("1"), MASK.convert("RGB"), np.asarray(MASK) > 0, np.asarray(MASK) / 255],
    ids=["bits", "colours", "true and false", "shares"],
)
def test_a_mask_is_what_the_pipeline_takes_for_one(probe, mask):
    np.testing.assert_array_equal(
        image_of(probe, mask_image=mask), plain_of(probe, mask_image=MASK)
    )


def test_the_mask_says_what_is_repainted(probe):
    inverted = 255 - np.asarray(MASK)
    assert (image_of(probe, mask_image=inverted) != image_of(probe)).any()


@pytest.mark.parametrize(("name", "shape"), [("kontext", (1, 4, 6, 8)), ("klein", (1, 16, 4, 6))])
def test_noise_that_is_given_is_the_noise_of_the_seed(name, shape):
    probe = built(name)
    assert probe.family.latents_shape(1, probe.layout(IMAGE, mask_image=MASK)) == shape
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(CALL["seed"]))
    np.testing.assert_array_equal(
        image_of(probe, seed=9, latents=noise, strength=1), image_of(probe, strength=1)
    )
    found = ", ".join(map(str, shape))
    with pytest.raises(InputError, match=rf"latents must have the shape \({found}\)"):
        image_of(probe, latents=noise.flatten(1, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_image": None}, "needs mask_image"),
        ({"image": None}, "no image without a reference"),
        ({"mask_image": tiny.tiny_mask(64, 64)}, "64 x 64 .* 96 x 64"),
        ({"mask_image": [MASK]}, "not list"),
        ({"strength": 0}, "strength must be above 0 .* not 0"),
        ({"strength": 1.5}, "at most 1, not 1.5"),
        ({"strength": "much"}, "'much'"),
        ({"strength": 1e-18}, "none of 4 steps"),
        ({"padding_mask_crop": 8}, "padding_mask_crop cuts out"),
        ({"height": 64}, "height has no effect"),
        ({"width": 64}, "width has no effect"),
    ],
)
def test_what_is_refused(probe, settings, message):
    with pytest.raises(InputError, match=message):
        image_of(probe, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": [IMAGE, IMAGE]}, "takes one reference image, not 2"),
        ({"image_reference": IMAGE}, "image_reference gives .* another picture"),
        ({"ip_adapter_image": IMAGE}, "needs an IP-Adapter"),
        ({"max_area": 4096}, "max_area has no effect"),
    ],
)
def test_what_kontext_refuses(settings, message):
    with pytest.raises(InputError, match=message):
        image_of(built("kontext"), **settings)


def test_a_scheduler_that_cannot_put_the_image_back_is_refused(probe, monkeypatch):
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    monkeypatch.setattr(probe.pipe, "scheduler", diffusers.UniPCMultistepScheduler(**flow))
    with pytest.raises(InputError, match="UniPCMultistepScheduler has no scale_noise"):
        image_of(probe)


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("predict_schedule", TransformerFamily.predict_schedule),
        (
            "predict_layout",
            lambda self, image, arguments: TokenLayout(12, Grid(4, 4), (Grid(3, 4),)),
        ),
    ],
)
def test_a_wrong_declaration_is_noticed(probe, monkeypatch, method, wrong):
    monkeypatch.setattr(type(probe.family), method, wrong)
    with pytest.raises(VerificationError):
        image_of(probe, strength=0.5)
