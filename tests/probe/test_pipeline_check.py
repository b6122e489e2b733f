"""A pipeline belongs to its user: whatever is changed after Probe() is followed or refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import remove_hook_from_module
from diffusers import FluxPipeline
from diffusers.hooks import apply_group_offloading, apply_layerwise_casting
from diffusers.models.transformers import transformer_flux
from nnsight import NNsight

from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.errors import InputError, UnsupportedPipelineError, VerificationError
from recast_probe.interventions import TokenCache
from recast_probe.probe import Probe
from recast_probe.testing import tiny, tiny_ip_adapter
from tests.pipeline_changes import (
    FORWARDS,
    PROCESSORS,
    Interrupt,
    applied,
    cache_configs,
    cached,
    replaced,
    wrapping,
)

QUIET = {"steps": 3, "progress": False}
CACHES = list(cache_configs(None))
RUNS = {
    "nnsight": lambda probe, image: probe.generate(image, "fox", **QUIET),
    "profile": lambda probe, image: probe.profile(image, "fox", **QUIET),
    "hooks": lambda probe, image: probe.generate(
        image, "fox", attachment="hooks", profile=True, **QUIET
    ),
    "recast": lambda probe, image: probe.recast(image, "fox", **QUIET),
    "verify": lambda probe, image: probe.verify(image, "fox", steps=2),
}
ATTACHMENTS = ("nnsight", "hooks")


@pytest.fixture(scope="module")
def pipe():
    """A pipeline of its own, since it is changed and changed back."""
    return tiny.build_tiny_pipeline()


@pytest.fixture(scope="module")
def own(pipe):
    return Probe(pipe)


@pytest.mark.parametrize("name", CACHES)
@pytest.mark.parametrize("run", RUNS)
def test_a_feature_cache_is_named(pipe, own, image, name, run):
    with cached(pipe, name), pytest.raises(UnsupportedPipelineError, match="disable_cache") as told:
        RUNS[run](own, image)
    assert type(cache_configs(pipe)[name]).__name__ in str(told.value)


@pytest.mark.parametrize("run", RUNS)
def test_so_is_one_that_the_transformer_knows_nothing_of(pipe, own, image, run):
    with applied(pipe), pytest.raises(UnsupportedPipelineError, match="taylor"):
        RUNS[run](own, image)


def test_without_it_all_is_as_before(pipe, own, image):
    before = np.asarray(own.recast(image, "fox", **QUIET).image)
    for name in CACHES:
        with cached(pipe, name):
            pass
    np.testing.assert_array_equal(np.asarray(own.recast(image, "fox", **QUIET).image), before)


@pytest.mark.parametrize("change", PROCESSORS)
def test_other_processors_are_never_replaced_by_ours(pipe, own, image, change):
    usual = np.asarray(own.generate(image, "fox", **QUIET).image)
    with PROCESSORS[change](pipe):
        plain = np.asarray(pipe(**own.pipeline_arguments(image, "fox", steps=3)).images[0])
        traced = np.asarray(own.generate(image, "fox", **QUIET).image)
        np.testing.assert_array_equal(traced, plain)
        with pytest.raises(UnsupportedPipelineError, match="attention processors do not compute"):
            own.generate(image, "fox", attachment="hooks", **QUIET)
        with pytest.raises(UnsupportedPipelineError, match="attention processors do not compute"):
            accelerate(pipe)
    if change != "a function they call":
        assert np.abs(plain.astype(int) - usual).max() > 0, "the change changed nothing"


@pytest.mark.parametrize("change", list(PROCESSORS)[:3])
def test_their_attention_is_not_read_where_it_is_not_known_to_be(pipe, own, image, change):
    with (
        PROCESSORS[change](pipe),
        pytest.raises(UnsupportedPipelineError, match="cannot be read") as told,
    ):
        own.profile(image, "fox", **QUIET)
    assert f"block {1 if change == 'one of the same name' else 0} " in str(told.value)


def test_a_processor_that_inherits_its_call_is_diffusers_own(pipe, own, image):
    class Named(transformer_flux.FluxAttnProcessor):
        """Another name, and nothing else."""

    expected = own.generate(image, "fox", profile=True, **QUIET)
    before = dict(pipe.transformer.attn_processors)
    pipe.transformer.set_attn_processor(Named())
    try:
        for attachment in ATTACHMENTS:
            found = own.generate(image, "fox", profile=True, attachment=attachment, **QUIET)
            np.testing.assert_array_equal(found.profile.score, expected.profile.score)
            np.testing.assert_array_equal(np.asarray(found.image), np.asarray(expected.image))
    finally:
        pipe.transformer.set_attn_processor(before)


@pytest.mark.parametrize("change", FORWARDS)
@pytest.mark.parametrize("attachment", ATTACHMENTS)
def test_a_replaced_forward_is_refused(pipe, own, image, change, attachment):
    with (
        FORWARDS[change](pipe),
        pytest.raises(UnsupportedPipelineError, match="was replaced by wrapping"),
    ):
        own.generate(image, "fox", attachment=attachment, **QUIET)


@pytest.mark.parametrize("hidden_by", ["accelerate", "diffusers", "nnsight"])
def test_one_that_another_tool_has_wrapped_is_refused_too(image, hidden_by):
    here = Probe(tiny.build_tiny_pipeline())
    transformer = here.pipe.transformer
    block = transformer.transformer_blocks[1]
    block.forward = wrapping(block.forward)
    if hidden_by == "accelerate":
        cpu_offload(transformer, torch.device("cpu"))
    elif hidden_by == "diffusers":
        device = torch.device("cpu")
        apply_group_offloading(transformer, onload_device=device, offload_type="leaf_level")
    else:
        NNsight(transformer)
    with pytest.raises(UnsupportedPipelineError, match="was replaced by wrapping"):
        here.generate(image, "fox", **QUIET)


@pytest.mark.parametrize("attachment", ATTACHMENTS)
def test_a_module_in_the_place_of_a_forward_is_refused(pipe, own, image, attachment):
    block = pipe.transformer.transformer_blocks[1]
    with (
        replaced(block, "forward", torch.nn.Identity().forward),
        pytest.raises(UnsupportedPipelineError, match="was replaced by Identity"),
    ):
        own.generate(image, "fox", attachment=attachment, **QUIET)


@pytest.mark.parametrize("attachment", ATTACHMENTS)
def test_hooks_that_move_weights_are_no_hindrance(own, image, attachment):
    expected = own.generate(image, "fox", profile=True, **QUIET)
    here = Probe(tiny.build_tiny_pipeline())
    transformer = here.pipe.transformer

    def check() -> None:
        found = here.generate(image, "fox", profile=True, attachment=attachment, **QUIET)
        np.testing.assert_array_equal(np.asarray(found.image), np.asarray(expected.image))
        np.testing.assert_array_equal(found.profile.score, expected.profile.score)

    cpu_offload(transformer, torch.device("cpu"))
    check()
    remove_hook_from_module(transformer, recurse=True)
    here.pipe.enable_model_cpu_offload(device="cpu")
    check()
    here.pipe.remove_all_hooks()
    apply_layerwise_casting(transformer, torch.float32, torch.float32, skip_modules_pattern=())
    check()
    device = torch.device("cpu")
    apply_group_offloading(transformer, onload_device=device, offload_type="leaf_level")
    check()


@pytest.mark.parametrize("attachment", ATTACHMENTS)
def test_neither_is_nnsight_around_them(own, image, attachment):
    here = Probe(tiny.build_tiny_pipeline())
    cpu_offload(here.pipe.transformer, torch.device("cpu"))
    wrapper = NNsight(here.pipe.transformer)
    found = here.generate(image, "fox", profile=True, attachment=attachment, **QUIET)
    assert wrapper.path == "model"
    expected = own.generate(image, "fox", **QUIET)
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(expected.image))


def test_fused_projections_are_no_hindrance(image):
    here = Probe(tiny.build_tiny_pipeline())
    here.pipe.transformer.fuse_qkv_projections()
    plain = np.asarray(here.pipe(**here.pipeline_arguments(image, "fox", steps=3)).images[0])
    for attachment in ATTACHMENTS:
        found = here.generate(image, "fox", profile=True, attachment=attachment, **QUIET)
        np.testing.assert_array_equal(np.asarray(found.image), plain)


def test_another_transformer_is_followed(own, image):
    here, other = Probe(tiny.build_tiny_pipeline()), tiny.build_tiny_pipeline(seed=1)
    here.generate(image, "fox", **QUIET)
    here.pipe.transformer = other.transformer
    plain = np.asarray(here.pipe(**here.pipeline_arguments(image, "fox", steps=3)).images[0])
    found = here.generate(image, "fox", profile=True, **QUIET)
    np.testing.assert_array_equal(np.asarray(found.image), plain)
    usual = np.asarray(own.generate(image, "fox", **QUIET).image)
    assert np.abs(plain.astype(int) - usual).max() > 0


def test_an_adapter_that_was_taken_off_is_missed(adapter_folders, image):
    here = Probe(tiny_ip_adapter.load(adapter_folders))
    assert isinstance(here.pipe, FluxPipeline)
    here.generate(image, "fox", **QUIET)
    here.pipe.unload_ip_adapter()
    for run in RUNS.values():
        with pytest.raises(UnsupportedPipelineError, match="has no IP-Adapter"):
            run(here, image)


@pytest.mark.parametrize("attachment", ATTACHMENTS)
def test_a_probe_inside_accelerate_says_so(pipe, own, image, attachment):
    with (
        accelerate(pipe),
        pytest.raises(UnsupportedPipelineError, match="accelerated already; call restore"),
    ):
        own.generate(image, "fox", attachment=attachment, **QUIET)
    own.generate(image, "fox", attachment=attachment, **QUIET)


@pytest.mark.parametrize("attachment", ATTACHMENTS)
@pytest.mark.parametrize("profile", [False, True])
@pytest.mark.parametrize("step", [0, 1])
def test_an_interrupted_run_is_told_as_such(own, image, attachment, profile, step):
    settings = {**QUIET, "attachment": attachment, "profile": profile}
    with pytest.raises(VerificationError, match=f"interrupted.*after {step + 1} of 3 "):
        own.generate(image, "fox", callback_on_step_end=Interrupt(step), **settings)
    own.generate(image, "fox", **settings)


@pytest.mark.parametrize("attachment", ATTACHMENTS)
def test_a_callback_that_starts_another_run_is_refused(own, image, attachment):
    def nested(*_: object) -> dict:
        own.generate(image, "fox", attachment=attachment, **QUIET)
        return {}

    with pytest.raises(InputError, match="in an observed run already"):
        own.generate(image, "fox", attachment=attachment, callback_on_step_end=nested, **QUIET)
    own.generate(image, "fox", attachment=attachment, **QUIET)


class TestNotFinite:
    """NaN and infinity are named where they arise."""

    @pytest.mark.parametrize("attachment", ATTACHMENTS)
    @pytest.mark.parametrize("settings", [{}, {"profile": True}, {"interventions": "cache"}])
    @pytest.mark.parametrize("layer", ["to_q", "norm_k", "to_v"])
    def test_a_damaged_weight(self, image, attachment, settings, layer):
        here = Probe(tiny.build_tiny_pipeline())
        if settings.get("interventions"):
            settings = {"interventions": [TokenCache(interval=2, first_full=1)]}
        block = here.pipe.transformer.single_transformer_blocks[3 - tiny.DOUBLE_BLOCKS]
        getattr(block.attn, layer).weight.data.view(-1)[0] = torch.nan
        with pytest.raises(VerificationError, match="NaN or inf in the") as told:
            here.generate(image, "fox", attachment=attachment, **QUIET, **settings)
        assert "step 0" in str(told.value)
        assert "block 3 " in str(told.value)
        assert f"attn.{layer}.weight holds them" in str(told.value)

    def test_one_of_a_linear_behind_attention_is_not_laid_to_the_next_block(self, image):
        here = Probe(tiny.build_tiny_pipeline())
        here.pipe.transformer.transformer_blocks[1].ff.net[2].bias.data[0] = torch.inf
        with pytest.raises(VerificationError, match="of block 2, step 0") as told:
            here.profile(image, "fox", **QUIET)
        assert "block 1 (transformer.transformer_blocks.1)" in str(told.value)

    @pytest.mark.parametrize(
        ("part", "named"),
        [
            (lambda pipe: pipe.text_encoder_2.encoder, "encoder_hidden_states"),
            (lambda pipe: pipe.vae.encoder, "given them .hidden_states"),
            (lambda pipe: pipe.vae.decoder, "autoencoder decoded"),
            (lambda pipe: pipe.transformer.proj_out, "transformer's output, step 0"),
        ],
    )
    def test_other_parts(self, image, part, named):
        here = Probe(tiny.build_tiny_pipeline())

        def spoil(_: object, __: object, output: torch.Tensor) -> torch.Tensor | None:
            if isinstance(output, torch.Tensor):
                return output * torch.nan
            output.last_hidden_state *= torch.inf
            return None

        part(here.pipe).register_forward_hook(spoil)
        with pytest.raises(VerificationError, match=named):
            here.generate(image, "fox", **QUIET)


class TestModesOfTorch:
    """The image is the plain one, and rows sum to 1, in every mode of the user's."""

    @pytest.mark.parametrize("attachment", ATTACHMENTS)
    @pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad, torch.no_grad])
    def test_with_and_without_gradients(self, pipe, own, image, attachment, mode):
        expected = own.generate(image, "fox", profile=True, **QUIET)
        with mode():
            plain = np.asarray(pipe(**own.pipeline_arguments(image, "fox", steps=3)).images[0])
            found = own.generate(image, "fox", profile=True, attachment=attachment, **QUIET)
        np.testing.assert_array_equal(np.asarray(found.image), plain)
        np.testing.assert_array_equal(found.profile.score, expected.profile.score)

    @pytest.mark.parametrize("attachment", ATTACHMENTS)
    def test_another_default_type(self, pipe, own, image, attachment):
        torch.set_default_dtype(torch.float64)
        try:
            plain = np.asarray(pipe(**own.pipeline_arguments(image, "fox", steps=3)).images[0])
            found = own.generate(image, "fox", profile=True, attachment=attachment, **QUIET)
        finally:
            torch.set_default_dtype(torch.float32)
        np.testing.assert_array_equal(np.asarray(found.image), plain)
        total = found.profile.mass.sum("key_group")
        np.testing.assert_allclose(total, 1, atol=1e-5)
