"""FLUX.1 with an IP-Adapter: what is read is what the adapter computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers import FluxPipeline
from PIL import Image
from transformers import CLIPImageProcessor

from recast_probe import rank
from recast_probe.attention.readout import Readout
from recast_probe.diagnostics import entropy, overlap, skew, stability
from recast_probe.errors import InputError, UnsupportedPipelineError, VerificationError
from recast_probe.interventions import Merge, Prune, TokenCache
from recast_probe.layout import Grid, TokenLayout
from recast_probe.probe import Probe
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.runs.verification import patches
from recast_probe.testing import tiny, tiny_ip_adapter

QUIET = {"steps": 3, "progress": False}
ROW = Grid(1, tiny_ip_adapter.TOKENS, placed=False)
GUIDED = {"true_cfg_scale": 2.0, "negative_prompt": "blurry"}


def pictures(count):
    return [tiny.tiny_image(seed=seed) for seed in range(count)]


def test_the_mass_is_one_by_construction_and_known_for_generation_alone(adapter_probe, image):
    mass = adapter_probe.profile(image, "fox", **QUIET).mass
    generation = mass.sel(query_group="generation")
    np.testing.assert_allclose(generation.sel(key_group="reference"), 1, atol=1e-6)
    assert (generation.sel(key_group=["text", "generation"]) == 0).all()
    assert np.isnan(mass.sel(query_group=["text", "reference"])).all()


@pytest.mark.parametrize(
    ("images", "size"), [(1, {}), (2, {}), (1, {"height": 32, "width": 80}), (1, {"height": 75})]
)
def test_the_predicted_layout_is_the_observed_one(adapter_probe, images, size):
    layout = adapter_probe.layout(pictures(images), **size)
    found = {}
    hook = adapter_probe.pipe.transformer.register_forward_pre_hook(
        lambda module, positional, inputs: found.update(inputs), with_kwargs=True
    )
    adapter_probe.pipe(**adapter_probe.pipeline_arguments(pictures(images), "fox", steps=1, **size))
    hook.remove()
    rows, columns = size.get("height", 64) // 16, size.get("width", 64) // 16
    assert layout == TokenLayout(tiny.TEXT_TOKENS, Grid(rows, columns), (ROW,) * images)
    assert found["hidden_states"].shape[1] == layout.generation.size
    # the checks of a run read the layout from the transformer's inputs
    adapter_probe.generate(pictures(images), "fox", steps=1, progress=False, **size)


class TwoViews(CLIPImageProcessor):
    """The left and the right half of each image."""

    views = 2

    def __call__(self, images, *arguments, **settings):
        # the pipeline shows the negative prompt one black array
        given = images if isinstance(images, list) else [Image.fromarray(images)]
        halves = [half for image in given for half in self.halves(image)]
        return super().__call__(halves, *arguments, **settings)

    @staticmethod
    def halves(image):
        middle = image.width // 2
        left, right = (0, 0, middle, image.height), (middle, 0, image.width, image.height)
        return [image.crop(left), image.crop(right)]


def test_views_of_an_image_are_one_row_of_tokens():
    pipe = tiny_ip_adapter.build_tiny_pipeline()
    probe, picture = Probe(pipe), tiny.tiny_image(96, 64)
    halves = probe.generate(TwoViews.halves(picture), "fox", seed=3, profile=True, **QUIET)
    pipe.feature_extractor = TwoViews(size=32, crop_size=32)
    found = probe.generate(picture, "fox", seed=3, profile=True, **QUIET)
    assert found.profile.layout.references == (Grid(1, 8, placed=False),)
    assert halves.profile.layout.references == (ROW, ROW)
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(halves.image))
    np.testing.assert_array_equal(found.profile.score, halves.profile.score)
    assert probe.family.facts()["ip_adapter"]["tokens_per_image"] == 8
    kept = probe.generate(
        picture, "fox", seed=3, interventions=[Prune(rank.random(8, seed=0), 3)], **QUIET
    )
    assert list(kept.reference_tokens_per_step) == [3, 3, 3]
    pipe.feature_extractor.views = 3
    with pytest.raises(VerificationError, match="2 embeddings"):
        probe.generate(picture, "fox", **QUIET)


def test_blocks_are_those_that_attend_to_the_reference(adapter_probe, image):
    assert adapter_probe.block_kinds == ["double"] * tiny.DOUBLE_BLOCKS
    assert "2 double-stream blocks, 2 heads" in repr(adapter_probe)
    profile = adapter_probe.profile(image, "fox", blocks="paper", **QUIET)
    assert profile.dataset["block"].values.tolist() == [0, 1]
    with pytest.raises(InputError, match="'single' selects no block"):
        adapter_probe.profile(image, "fox", blocks="single", **QUIET)


def test_a_profile_of_some_blocks_and_steps_changes_nothing_and_leaves_nothing(
    adapter_probe, image
):
    before = patches(adapter_probe.pipe.transformer)
    arguments = adapter_probe.pipeline_arguments(image, "fox", steps=3)
    plain = np.asarray(adapter_probe.pipe(**arguments).images[0])
    some = {"blocks": [1], "profile_steps": [2]}
    result = adapter_probe.generate(image, "fox", profile=True, **QUIET, **some)
    np.testing.assert_array_equal(np.asarray(result.image), plain)
    assert patches(adapter_probe.pipe.transformer) == before


def test_a_certificate_with_negative_images(adapter_probe):
    several = pictures(3)
    guided = {**GUIDED, "negative_ip_adapter_image": several[::-1]}
    certificate = adapter_probe.verify(several, "fox", **guided)
    assert certificate.passed, certificate
    assert certificate.attention_calls_recorded == 8


def test_a_certificate_fails_for_wrong_numbers(adapter_probe, image, monkeypatch):
    family = type(adapter_probe.family)
    real = family.read_attention

    def wrong(self, query, key, value, layout, **settings) -> Readout:
        return real(self, query.roll(1, dims=2), key, value, layout, **settings)

    monkeypatch.setattr(family, "read_attention", wrong)
    # the run itself cannot know; the second attachment does
    monkeypatch.setattr("recast_probe.runs.observer.KERNEL_TOLERANCE", np.inf)
    checks = adapter_probe.verify(image, "fox").checks
    assert [name for name, holds in checks.items() if not holds] == ["both attachments agree"]


def test_both_branches_need_as_many_images(adapter_probe, image):
    with pytest.raises(InputError, match="has 2, so their tokens do not correspond"):
        adapter_probe.profile(pictures(2), "fox", **QUIET, **GUIDED)
    negative = {"negative_ip_adapter_image": image}
    with pytest.raises(InputError, match="has 1 images and image has 2"):
        adapter_probe.profile(pictures(2), "fox", **QUIET, **GUIDED, **negative)


def test_an_offloaded_transformer(adapter_folders):
    """Its weights are brought in by hooks, also for the projection of pruned tokens."""
    reference, ranking = pictures(2), rank.random(8, 0)
    here = Probe(tiny_ip_adapter.load(adapter_folders))
    expected = here.generate(reference, "fox", interventions=[Prune(ranking, 3)], **QUIET)
    cpu_offload(here.pipe.transformer, torch.device("cpu"))
    assert next(here.pipe.transformer.encoder_hid_proj.parameters()).is_meta
    found = here.generate(
        reference, "fox", interventions=[Prune(ranking, 3)], profile=True, **QUIET
    )
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(expected.image))


def test_what_a_result_says(adapter_folders, image):
    pipe = tiny_ip_adapter.load(adapter_folders)
    pipe.set_ip_adapter_scale([0.25, 1.0])
    facts = Probe(pipe).profile(pictures(2), "fox", **QUIET).provenance
    assert facts["model"]["family"] == "flux-ip-adapter"
    assert facts["model"]["ip_adapter"]["tokens_per_image"] == 4
    assert facts["model"]["ip_adapter"]["scale"] == [0.25, 1.0]
    assert [each["width"] for each in facts["images"]] == [64, 64]
    assert "ip_adapter_image" not in facts["arguments"]


def test_diagnostics_of_tokens_without_places(adapter_probe, image, tmp_path):
    profile = adapter_probe.profile(image, "fox", **QUIET)
    other = adapter_probe.profile(image, "a hat", **QUIET)
    loaded = AttentionProfile.load(profile.save(tmp_path / "fox.nc"))
    assert loaded.identical(profile)
    assert loaded.layout.references == (ROW,)
    mean = loaded.mean_score().values
    assert skew(loaded).top_share_of_mean_score == pytest.approx(mean.max() / mean.sum())
    assert 0 < entropy(loaded).maximum <= 2
    with pytest.warns(UserWarning, match="one pair"):
        assert np.isfinite(stability([profile, other]).mean_spearman.mean)
    with pytest.raises(InputError, match="no places in the image"):
        overlap(loaded, np.array([True, False, False, False]))
    with pytest.raises(InputError, match="no places in the image"):
        adapter_probe.reference_mask(np.ones((64, 64)), image)


def test_a_pipeline_without_an_adapter(adapter_folders):
    pipe = FluxPipeline.from_pretrained(adapter_folders.base)
    with pytest.raises(UnsupportedPipelineError, match=r"Load one first: pipe\.load_ip_adapter"):
        Probe(pipe)
    probe = Probe(tiny_ip_adapter.load(adapter_folders))
    probe.pipe.unload_ip_adapter()
    with pytest.raises(UnsupportedPipelineError, match="no IP-Adapter"):
        probe.profile(tiny.tiny_image(), "fox", **QUIET)


def test_several_adapters_are_refused(adapter_folders):
    pipe = FluxPipeline.from_pretrained(adapter_folders.base)
    pipe.load_ip_adapter(
        [str(adapter_folders.adapter)] * 2,
        weight_name=[tiny_ip_adapter.WEIGHTS] * 2,
        image_encoder_pretrained_model_name_or_path=str(adapter_folders.image_encoder),
    )
    with pytest.raises(UnsupportedPipelineError, match="2 are loaded, and each attends in a soft"):
        Probe(pipe)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ip_adapter_image": "x"}, "'ip_adapter_image' is set by the probe; use image"),
        ({"ip_adapter_image_embeds": []}, "use image of the probe"),
        ({"joint_attention_kwargs": {"ip_hidden_states": []}}, "give the image instead"),
        ({"image": []}, "list of reference images is empty"),
        ({"image": [tiny.tiny_image(), 3]}, "PIL image or the path"),
        ({"image": None}, "no reference tokens"),
        ({"height": 8}, "0 x 4 generation tokens"),
        ({"negative_ip_adapter_image": 3}, "PIL image or the path"),
    ],
)
def test_wrong_arguments(adapter_probe, image, settings, message):
    with pytest.raises(InputError, match=message):
        adapter_probe.profile(**{"image": image, "prompt": "fox", **QUIET, **settings})


def test_what_cannot_be_done_to_image_tokens(adapter_probe):
    for intervention in (Merge(4), TokenCache()):
        with pytest.raises(UnsupportedPipelineError, match="of flux-ip-adapter cannot be"):
            adapter_probe.generate(pictures(4), "fox", interventions=[intervention], **QUIET)


def test_kontext_takes_one_reference(probe):
    with pytest.raises(InputError, match="takes one reference image, not 2"):
        probe.profile(pictures(2), "fox", **QUIET)
