"""What the probe runs is the pipeline's own call with the user's arguments, for any size."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.probe import Probe
from recast_probe.testing import tiny, tiny_flux2, tiny_qwen

SIGMAS = {"sigmas": [1.0, 0.4]}
SHORT = {"max_sequence_length": 9}
GUIDANCE = {"guidance_scale": 1.7}
NEGATIVE = {"true_cfg_scale": 2.0, "negative_prompt": "snow"}
UNUSED = {"negative_prompt": "snow"}
ANY = [SIGMAS, SHORT, GUIDANCE]
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "kontext": [
        {},
        {"height": 768},
        {"width": 512},
        {"height": 700, "width": 1200},
        {"max_area": 512 * 512},
        {"max_area": 512 * 512, "height": 768},
        {"max_area": 300_000, "width": 640, "height": 512},
        {"_auto_resize": False},
        {"_auto_resize": False, "max_area": 512 * 512, **NEGATIVE},
        *({"max_area": 512 * 512, **each} for each in (*ANY, NEGATIVE, UNUSED)),
    ],
    "adapter": [{**SIGMAS, **SHORT}, GUIDANCE, NEGATIVE, UNUSED, {"height": 96}, {"width": 130}],
    "flux2": [{}, {"height": 96}, {"width": 40}, {"height": 50, "width": 33}, *ANY],
    "klein": [{}, {"height": 96}, {"height": 50, "width": 33}, *ANY, {"guidance_scale": 0.5}],
    "edit": [
        {"height": 400},
        *({**tiny_qwen.SIZE, **each} for each in (SIGMAS, SHORT, NEGATIVE, UNUSED)),
    ],
    "plus": [{"width": 300}, *({**tiny_qwen.SIZE, **each} for each in (SIGMAS, NEGATIVE))],
}
CASES = [(name, settings) for name, each in SETTINGS.items() for settings in each]
ALWAYS: dict[str, dict[str, Any]] = {"adapter": {"height": 64, "width": 96}}


def megapixel_kontext():
    """Made for one megapixel, of 8 x 8 tokens: the autoencoder halves images six times."""
    pipe = tiny.build_tiny_pipeline()
    vae = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 7,
        up_block_types=("UpDecoderBlock2D",) * 7,
        block_out_channels=(4,) * 7,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=1024,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )
    pipe.tokenizer_2.model_max_length = 512
    made = type(pipe)(**{**pipe.components, "vae": vae.eval()})
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def megapixel(adapter_folders):
    """Probes of tiny pipelines whose configs are those of the large ones where sizes count."""
    from recast_probe.testing import tiny_ip_adapter

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipes = {
            "kontext": megapixel_kontext(),
            "adapter": tiny_ip_adapter.load(adapter_folders),
            "flux2": tiny_flux2.build_flux2(),
            "klein": tiny_flux2.build_klein(),
            "edit": tiny_qwen.build_tiny_pipeline(),
            "plus": tiny_qwen.build_tiny_pipeline(plus=True),
        }
    pipes["adapter"].vae.register_to_config(sample_size=1024)
    pipes["adapter"].tokenizer_2.model_max_length = 512
    for name in ("flux2", "klein"):
        pipes[name].tokenizer.model_max_length = 512
    for name in ("edit", "plus"):
        tiny_qwen.remember_encoded(pipes[name].vae)
    for pipe in pipes.values():
        pipe.set_progress_bar_config(disable=True)
    return {name: Probe(pipe) for name, pipe in pipes.items()}


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_the_users_arguments_are_the_plain_pipelines(megapixel, name, settings):
    probe, settings = megapixel[name], ALWAYS.get(name, {}) | settings
    image = tiny.tiny_image(300, 200)
    given = {"ip_adapter_image" if name == "adapter" else "image": image}
    expected = probe.pipe(
        **given,
        prompt="fox",
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        **settings,
    ).images[0]
    result = probe.generate(image, "fox", steps=2, progress=False, **settings)
    np.testing.assert_array_equal(np.asarray(result.image), np.asarray(expected))
    unused = [each for each in result.provenance.get("remarks", []) if "no effect" in each]
    qwen = name in ("edit", "plus")
    guided = settings.get("true_cfg_scale", 4.0 if qwen else 1.0) > 1
    assert len(unused) == ("negative_prompt" in settings and not guided)


def test_the_output_does_not_change_the_reference(megapixel, probe):
    """At one megapixel and in a small model alike; the numbers are the plain pipeline's."""
    image = tiny.tiny_image(1248, 832)
    kontext = megapixel["kontext"]
    plain = kontext.layout(image)
    assert plain.references == (Grid(6, 9),)
    for settings in ({"max_area": 256 * 256}, {"height": 512}, {"height": 400, "width": 900}):
        assert kontext.layout(image, **settings).references == plain.references
    small = probe.layout(image)
    for settings in ({"max_area": 128 * 128}, {"max_area": 32 * 32}, {"height": 32}):
        assert probe.layout(image, **settings).references == small.references
    assert probe.layout(image, max_area=32 * 32).generation == Grid(2, 2)


def test_default_sizes(megapixel):
    image = tiny.tiny_image(128, 128)
    for name in ("kontext", "adapter"):
        asked = megapixel[name].pipeline_arguments(image, "fox")
        pipe = megapixel[name].pipe
        assert asked["height"] == pipe.default_sample_size * pipe.vae_scale_factor
    assert megapixel["kontext"].pipeline_arguments(image, "fox")["max_area"] == 1024 * 1024
    assert megapixel["adapter"].layout(image).generation == Grid(64, 64)


def test_results_say_that_the_probe_scaled_the_reference(probe):
    large = probe.generate(tiny.tiny_image(200, 100), "fox", steps=1, progress=False)
    assert large.provenance["image"]["scaled_by_the_probe_from"] == [200, 100]
    for image, settings in ((tiny.tiny_image(), {}), (tiny.tiny_image(200, 100), None)):
        own = {"_auto_resize": False} if settings is None else settings
        facts = probe.generate(image, "fox", steps=1, progress=False, **own).provenance["image"]
        assert "scaled_by_the_probe_from" not in facts


TINY = [(5, 5), (15, 15), (4000, 8), (15, 4000), (0, 5), (5, 0), (0, 0), (1, 1)]


@pytest.mark.parametrize("size", TINY)
@pytest.mark.parametrize("which", ["large", "small"])
def test_references_below_one_token(megapixel, probe, size, which):
    probe = {"large": megapixel["kontext"], "small": probe}[which]
    image = Image.new("RGB", size)
    calls = [
        lambda: probe.layout(image),
        lambda: probe.profile(image, "fox", steps=1, progress=False),
        lambda: probe.generate(image, "fox", steps=1, progress=False),
        lambda: probe.reference_mask(np.ones((4, 4)), image),
    ]
    for call in calls:
        with pytest.raises(InputError, match=f"{size[0]} x {size[1]} pixels"):
            call()


@pytest.mark.parametrize("size", [(5, 5), (15, 4000), (0, 5)])
def test_references_below_one_token_in_flux2(flux2_probe, size):
    with pytest.raises(InputError, match=f"{size[0]} x {size[1]}"):
        flux2_probe.layout(Image.new("RGB", size))


@pytest.mark.parametrize("name", ["edit", "plus", "adapter"])
def test_references_without_pixels(megapixel, name):
    """These pipelines scale up whatever has any."""
    for size in ((0, 5), (7, 0)):
        with pytest.raises(InputError, match=f"{size[0]} x {size[1]}"):
            megapixel[name].layout(Image.new("RGB", size))
    assert megapixel[name].layout(Image.new("RGB", (5, 5))).reference_tokens


@pytest.mark.parametrize("name", ["edit", "plus"])
def test_strips_that_qwen_scales_to_nothing(megapixel, name):
    with pytest.raises(InputError, match="1 x 9000"):
        megapixel[name].layout(Image.new("RGB", (1, 9000)))
