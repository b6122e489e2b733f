"""What is put into a pipeline besides caches and forwards; and runs that go wrong on their way."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from diffusers import hooks
from diffusers.models.transformers.transformer_flux import FluxIPAdapterAttnProcessor

from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.errors import UnsupportedPipelineError, VerificationError
from recast_probe.interventions import ReuseReference
from recast_probe.probe import Probe
from recast_probe.testing import tiny
from tests.pipeline_changes import replaced, wrapping

STEPS = 3
QUIET = {"steps": STEPS, "progress": False}
ATTACHMENTS = ("nnsight", "hooks")


@pytest.fixture
def pipe():
    """One that a test may spoil."""
    return tiny.build_tiny_pipeline()


def call(pipe, probe, image):
    return np.asarray(pipe(**probe.pipeline_arguments(image, "fox", steps=STEPS)).images[0])


@pytest.mark.parametrize(
    ("apply", "config"),
    [
        (hooks.apply_first_block_cache, hooks.FirstBlockCacheConfig()),
        (hooks.apply_taylorseer_cache, hooks.TaylorSeerCacheConfig()),
        (
            hooks.apply_layer_skip,
            hooks.LayerSkipConfig(indices=[1], fqn="transformer_blocks"),
        ),
    ],
)
def test_the_way_out_of_a_hook_that_was_put_in_by_hand(pipe, image, apply, config):
    """``disable_cache`` does not know it; the message's own call takes it off."""
    probe = Probe(pipe)
    plain = call(pipe, probe, image)
    apply(pipe.transformer, config)
    for _ in range(3):
        try:
            made = probe.generate(image, "fox", **QUIET).image
            break
        except UnsupportedPipelineError as error:
            found = str(error).split("remove_hook('")[1].split("'")[0]
        registry = hooks.HookRegistry.check_if_exists_or_initialize(pipe.transformer)
        registry.remove_hook(found, recurse=True)
    np.testing.assert_array_equal(np.asarray(made), plain)


@pytest.mark.parametrize("honest", [True, False])
def test_a_wrapped_call_of_the_pipeline_runs_as_it_is(pipe, image, honest):
    own = type(pipe).__call__
    probe = Probe(pipe)
    wrapped = functools.wraps(own)(wrapping(own)) if honest else wrapping(own)
    plain = call(pipe, probe, image)
    with replaced(type(pipe), "__call__", wrapped):
        for attachment in ATTACHMENTS:
            made = probe.generate(image, "fox", profile=True, attachment=attachment, **QUIET)
            np.testing.assert_array_equal(np.asarray(made.image), plain)
        with accelerate(pipe, interventions=[ReuseReference(refresh=1)]):
            np.testing.assert_array_equal(call(pipe, probe, image), plain)


def test_a_smaller_transformer_and_none(pipe, image):
    probe = Probe(pipe)
    smaller = tiny.build_tiny_pipeline().transformer
    del smaller.single_transformer_blocks[1:]
    pipe.transformer = smaller
    assert probe.block_kinds == ["double", "double", "single"]
    assert probe.profile(image, "fox", **QUIET).dataset.sizes["block"] == 3
    pipe.transformer = None
    for run in (probe.generate, probe.profile, probe.attention_maps, probe.verify):
        with pytest.raises(UnsupportedPipelineError, match="transformer"):
            run(image, "fox", steps=STEPS)


def test_blocks_that_were_compiled_since(pipe, image):
    probe = Probe(pipe)
    plain = call(pipe, probe, image)
    pipe.transformer.transformer_blocks[0].compile(backend="eager")
    with pytest.raises(UnsupportedPipelineError, match="before compiling"):
        probe.profile(image, "fox", **QUIET)
    made = probe.generate(image, "fox", attachment="hooks", profile=True, **QUIET).image
    np.testing.assert_array_equal(np.asarray(made), plain)
    pipe.transformer.compile(backend="eager")
    with pytest.raises(UnsupportedPipelineError, match="compiled as a whole"):
        probe.generate(image, "fox", attachment="hooks", **QUIET)


def test_adapter_processors_that_came_later(pipe, image):
    probe = Probe(pipe)
    pipe.transformer.transformer_blocks[1].attn.set_processor(
        FluxIPAdapterAttnProcessor(hidden_size=32, cross_attention_dim=8)
    )
    for run in (probe.generate, probe.profile, probe.attention_maps, probe.verify):
        with pytest.raises(UnsupportedPipelineError, match=r"blocks\.1\.attn.*unload_ip_adapter"):
            run(image, "fox", steps=STEPS)


@pytest.mark.parametrize("mass_table", ["all", "queried"])
@pytest.mark.parametrize("attachment", ATTACHMENTS)
def test_a_weight_that_is_spoiled_between_steps(pipe, image, attachment, mass_table):
    def meddle(pipe, step, timestep, tensors):
        if step == 1:
            pipe.transformer.single_transformer_blocks[1].attn.to_k.bias.data[0] = torch.nan
        return tensors

    settings = {"profile": True, "mass_table": mass_table, "attachment": attachment, **QUIET}
    with pytest.raises(VerificationError, match=r"key of block 3, step 2 .*to_k\.bias holds them"):
        Probe(pipe).generate(image, "fox", callback_on_step_end=meddle, **settings)


@pytest.mark.parametrize("profile", [True, False])
def test_latents_that_are_not_finite(pipe, image, profile):
    def meddle(pipe, step, timestep, tensors):
        return {"latents": tensors["latents"] * torch.nan} if step == 0 else tensors

    with pytest.raises(VerificationError, match=r"step 1 .*given them \(hidden_states\)"):
        Probe(pipe).generate(image, "fox", profile=profile, callback_on_step_end=meddle, **QUIET)


def test_every_reader_tells_of_them(pipe, image):
    pipe.transformer.single_transformer_blocks[0].attn.to_k.bias.data[0] = torch.nan
    probe = Probe(pipe)
    for run in (probe.attention_maps, probe.recast, probe.profile):
        with pytest.raises(VerificationError, match=r"of block 2, step 0 "):
            run(image, "fox", blocks="all", **QUIET)
    with accelerate(pipe, "recast"), pytest.raises(VerificationError, match="of block"):
        call(pipe, probe, image)


@pytest.mark.parametrize("attachment", ATTACHMENTS)
def test_interruptions_between_branches_and_errors_of_the_users(pipe, image, attachment):
    def stop(pipe, step, timestep, tensors):
        pipe._interrupt = True
        return tensors

    def fail(pipe, step, timestep, tensors):
        raise KeyError("mine")

    guided = {"true_cfg_scale": 2.0, "negative_prompt": "blurry"}
    settings = {"attachment": attachment, "profile": True, **guided, **QUIET}
    probe = Probe(pipe)
    with pytest.raises(VerificationError, match=f"after 2 of {2 * STEPS} transformer calls"):
        probe.generate(image, "fox", callback_on_step_end=stop, **settings)
    with pytest.raises(KeyError, match="mine"):
        probe.generate(image, "fox", callback_on_step_end=fail, **settings)


def test_steps_that_are_left_out_are_not_told_as_an_interruption(pipe, image):
    own = type(pipe).__call__

    class Skipping(type(pipe)):
        @functools.wraps(own)
        def __call__(self, **arguments):
            return own(self, **{**arguments, "num_inference_steps": 2, "sigmas": [1.0, 0.5]})

    probe = Probe(Skipping(**pipe.components))
    with pytest.raises(VerificationError, match=r"2 times, and 3 calls .*such as a cache"):
        probe.generate(image, "fox", sigmas=[1.0, 0.5, 0.3], **QUIET)
