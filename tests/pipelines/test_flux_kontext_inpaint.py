"""What the conformance suite does not ask of inpainting: strength, masks, and what is refused."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch

from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.errors import InputError, VerificationError
from recast_probe.interventions import Recast
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines import FluxKontextInpaint
from recast_probe.pipelines.flux.kontext import FluxKontext
from recast_probe.probe import Probe
from recast_probe.testing import tiny

IMAGE, MASK = tiny.tiny_image(96, 64), tiny.tiny_mask(96, 64)
CALL = {"image": IMAGE, "prompt": "fox", "steps": 4, "seed": 3, "mask_image": MASK}


@pytest.fixture
def probe():
    return Probe(tiny.build_inpaint_pipeline())


def image_of(probe, **settings):
    return np.asarray(probe.generate(**CALL | settings, progress=False).image)


@pytest.mark.parametrize("attachment", ["nnsight", "hooks"])
@pytest.mark.parametrize(
    ("steps", "strength", "made"),
    [(1, 0.3, 1), (4, 0.05, 1), (4, 0.5, 2), (4, 0.6, 3), (4, 1.0, 4), (7, 0.5, 4)],
)
def test_strength_leaves_the_last_steps(probe, attachment, steps, strength, made):
    call = CALL | {"steps": steps, "strength": strength}
    plain = probe.pipe(**probe.pipeline_arguments(**call)).images[0]
    timesteps = probe.pipe.scheduler.timesteps
    result = probe.generate(**call, profile=True, attachment=attachment, progress=False)
    np.testing.assert_array_equal(np.asarray(result.image), np.asarray(plain))
    np.testing.assert_allclose(result.profile.dataset["timestep"], timesteps[-made:], rtol=1e-6)
    assert result.provenance["steps"] == made
    assert result.provenance["num_inference_steps"] == steps


def test_the_accelerated_pipeline_begins_at_the_same_step(probe):
    call, recast = CALL | {"steps": 7, "strength": 0.5}, Recast(5, blocks="all")
    expected = probe.generate(**call, interventions=[recast], progress=False)
    with accelerate(probe.pipe, interventions=[recast]) as accelerated:
        live = probe.pipe(**probe.pipeline_arguments(**call)).images[0]
        assert accelerated.report["reference_tokens_per_step"] == [12, 5, 5, 5]
    np.testing.assert_array_equal(np.asarray(live), np.asarray(expected.image))


@pytest.mark.parametrize(
    "mask",
    [MASK.convert("1"), MASK.convert("RGB"), np.asarray(MASK) > 0, np.asarray(MASK) / 255],
    ids=["bits", "colours", "true and false", "shares"],
)
def test_a_mask_is_what_the_pipeline_takes_for_one(probe, mask):
    arguments = probe.pipeline_arguments(**CALL) | {"mask_image": MASK}
    plain = np.asarray(probe.pipe(**arguments).images[0])
    np.testing.assert_array_equal(image_of(probe, mask_image=mask), plain)


def test_noise_that_is_given_is_the_noise_of_the_seed(probe):
    shape = probe.family.latents_shape(1, probe.layout(IMAGE, mask_image=MASK))
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(CALL["seed"]))
    np.testing.assert_array_equal(image_of(probe, seed=9, latents=noise), image_of(probe))
    with pytest.raises(InputError, match=r"latents must have the shape \(1, 4, 6, 8\)"):
        image_of(probe, latents=noise.reshape(1, 12, 16))


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
        ({"image_reference": IMAGE}, "image_reference gives .* another picture"),
        ({"padding_mask_crop": 8}, "padding_mask_crop cuts out"),
        ({"height": 64}, "height has no effect"),
        ({"ip_adapter_image": IMAGE}, "needs an IP-Adapter"),
    ],
)
def test_what_is_refused(probe, settings, message):
    with pytest.raises(InputError, match=message):
        image_of(probe, **settings)


def test_a_scheduler_that_cannot_put_the_image_back_is_refused(probe):
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    probe.pipe.scheduler = diffusers.UniPCMultistepScheduler(**flow)
    with pytest.raises(InputError, match="UniPCMultistepScheduler has no scale_noise"):
        image_of(probe)


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        ("predict_schedule", FluxKontext.predict_schedule),
        (
            "predict_layout",
            lambda self, image, arguments: TokenLayout(12, Grid(4, 4), (Grid(3, 4),)),
        ),
    ],
)
def test_a_wrong_declaration_is_noticed(probe, monkeypatch, method, wrong):
    monkeypatch.setattr(FluxKontextInpaint, method, wrong)
    with pytest.raises(VerificationError):
        image_of(probe, strength=0.5)
