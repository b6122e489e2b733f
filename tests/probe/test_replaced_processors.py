"""Attention processors that are not diffusers' own: called as they are, or refused in words."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers import transformer_flux
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.errors import UnsupportedPipelineError, VerificationError
from recast_probe.probe import Probe
from recast_probe.runs.pipeline_check import unreadable_blocks
from recast_probe.testing import tiny, tiny_ip_adapter

STEPS = 3
QUIET = {"steps": STEPS, "progress": False}


def call(pipe, probe, image, **settings):
    arguments = probe.pipeline_arguments(image, "fox", steps=STEPS, **settings)
    return np.asarray(pipe(**arguments).images[0])


def accelerated(probe, image):
    with accelerate(probe.pipe):
        return call(probe.pipe, probe, image)


def hooked(probe, image):
    return probe.generate(image, "fox", attachment="hooks", **QUIET)


@pytest.fixture
def pipe():
    """One that a test may spoil."""
    return tiny.build_tiny_pipeline()


OWN = FluxAttnProcessor.__call__


def without_dispatch(self, attn, hidden_states, *arguments, **named):
    made = OWN(self, attn, hidden_states, *arguments, **named)
    return tuple(each * 0.9 for each in made) if isinstance(made, tuple) else made * 0.9


def joint(attn, hidden_states, text, rotary):
    """Query, key and value of the whole sequence, text first, with rotary positions."""
    projected = transformer_flux._get_qkv_projections(attn, hidden_states, text)
    heads = [
        None if each is None else each.unflatten(-1, (-1, attn.head_dim)) for each in projected
    ]
    query, key, value = attn.norm_q(heads[0]), attn.norm_k(heads[1]), heads[2]
    if text is not None:
        query = torch.cat([attn.norm_added_q(heads[3]), query], dim=1)
        key = torch.cat([attn.norm_added_k(heads[4]), key], dim=1)
        value = torch.cat([heads[5], value], dim=1)
    rotated = [apply_rotary_emb(each, rotary, sequence_dim=1) for each in (query, key)]
    return *rotated, value


def twice_dispatched(
    self,
    attn,
    hidden_states,
    encoder_hidden_states=None,
    attention_mask=None,
    image_rotary_emb=None,
):
    """A copy that attends once for itself and once for the result."""
    query, key, value = joint(attn, hidden_states, encoder_hidden_states, image_rotary_emb)
    first = dispatch_attention_fn(query, key, value)
    return finished(
        attn, (first + dispatch_attention_fn(query, key, value)) / 2, encoder_hidden_states
    )


def sharpened(
    self,
    attn,
    hidden_states,
    encoder_hidden_states=None,
    attention_mask=None,
    image_rotary_emb=None,
):
    """Attends as diffusers does, with other queries."""
    query, key, value = joint(attn, hidden_states, encoder_hidden_states, image_rotary_emb)
    return finished(attn, dispatch_attention_fn(query * 3, key, value), encoder_hidden_states)


def finished(attn, output, text):
    output = output.flatten(2, 3)
    if text is None:
        return output
    text, image = output.split([text.shape[1], output.shape[1] - text.shape[1]], dim=1)
    return attn.to_out[1](attn.to_out[0](image.contiguous())), attn.to_add_out(text.contiguous())


Subclass = type("FluxAttnProcessor", (FluxAttnProcessor,), {"__call__": without_dispatch})
OtherName = type("Sharpened", (FluxAttnProcessor,), {"__call__": sharpened})


def patch_class(pipe, monkeypatch, call=without_dispatch):
    monkeypatch.setattr(FluxAttnProcessor, "__call__", call)


PROCESSORS = {
    "wrapper that keeps its name": lambda pipe, monkeypatch: patch_class(
        pipe, monkeypatch, functools.wraps(OWN)(lambda *a, **k: without_dispatch(*a, **k))
    ),
    "class of an instance changed": lambda pipe, monkeypatch: monkeypatch.setattr(
        pipe.transformer.transformer_blocks[0].attn.processor, "__class__", Subclass
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_processors_that_compute_something_else(pipe, image, monkeypatch, name):
    probe = Probe(pipe)
    PROCESSORS[name](pipe, monkeypatch)
    plain = call(pipe, probe, image)
    # nothing is read, so nothing is replaced
    np.testing.assert_array_equal(np.asarray(probe.generate(image, "fox", **QUIET).image), plain)
    for run in (hooked, accelerated):
        with pytest.raises(UnsupportedPipelineError, match="do not compute what"):
            run(probe, image)
    with pytest.raises(UnsupportedPipelineError, match="cannot be read"):
        probe.profile(image, "fox", **QUIET)
    np.testing.assert_array_equal(call(pipe, probe, image), plain)


def test_a_processor_that_is_set_in_the_middle_of_an_image(pipe, image):
    def meddle(pipe, step, timestep, tensors):
        if step == 1:
            pipe.transformer.set_attn_processor(FluxAttnProcessor())
        return tensors

    probe = Probe(pipe)
    with pytest.raises(UnsupportedPipelineError, match="replaced while"):
        probe.generate(image, "fox", attachment="hooks", callback_on_step_end=meddle, **QUIET)


def test_a_dispatch_that_was_replaced(pipe, image, monkeypatch):
    own = transformer_flux.dispatch_attention_fn
    monkeypatch.setattr(
        transformer_flux, "dispatch_attention_fn", lambda *a, **k: own(*a, **k) * 0.9
    )
    probe = Probe(pipe)
    for run in (hooked, accelerated, lambda probe, image: probe.profile(image, "fox", **QUIET)):
        with pytest.raises(UnsupportedPipelineError, match=r"<lambda> \(test_replaced_pro"):
            run(probe, image)


@pytest.mark.parametrize("patched", ["class", "instances"])
def test_a_processor_that_leaves_its_attention_to_diffusers(pipe, image, monkeypatch, patched):
    probe = Probe(pipe)
    own = probe.profile(image, "fox", **QUIET)
    if patched == "class":
        patch_class(pipe, monkeypatch, sharpened)
    else:
        pipe.transformer.set_attn_processor(OtherName())
    plain = call(pipe, probe, image)
    result = probe.generate(image, "fox", profile=True, **QUIET)
    np.testing.assert_array_equal(np.asarray(result.image), plain)
    # the attention that was read is the sharper one
    entropy = [each.dataset["conditional_entropy"].values.mean() for each in (own, result.profile)]
    assert entropy[1] < entropy[0]
    certificate = probe.verify(image, "fox", steps=STEPS)
    assert certificate.passed, str(certificate)


def test_a_processor_that_attends_twice(pipe, image, monkeypatch):
    probe = Probe(pipe)
    patch_class(pipe, monkeypatch, twice_dispatched)
    assert list(unreadable_blocks(probe.family)) == list(range(tiny.BLOCKS))
    with pytest.raises(UnsupportedPipelineError, match=r"block 0.*to one call"):
        probe.profile(image, "fox", **QUIET)


def test_attention_that_is_not_reached(pipe, image, monkeypatch):
    """A processor with diffusers' dispatch in its source that goes another way."""
    probe = Probe(pipe)

    def elsewhere(self, attn, hidden_states, *arguments, **named):
        if hidden_states is not None:
            return without_dispatch(self, attn, hidden_states, *arguments, **named)
        return dispatch_attention_fn(hidden_states, hidden_states, hidden_states)

    processor = type("FluxAttnProcessor", (FluxAttnProcessor,), {"__call__": elsewhere})()
    pipe.transformer.single_transformer_blocks[1].attn.set_processor(processor)
    with pytest.raises(VerificationError, match=r"block 3 .*not reached in transformer call 0"):
        probe.profile(image, "fox", **QUIET)


def test_other_kernels_in_pytorchs_place(pipe, image, monkeypatch):
    """A kernel that is put in by name makes the image; what is read is the softmax beside it."""
    functional = torch.nn.functional
    own = functional.scaled_dot_product_attention
    probe = Probe(pipe)
    monkeypatch.setattr(
        functional, "scaled_dot_product_attention", lambda *a, **k: own(*a, **k) * 1.001
    )
    plain = call(pipe, probe, image)
    for attachment in ("nnsight", "hooks"):
        made = probe.generate(image, "fox", profile=True, attachment=attachment, **QUIET).image
        np.testing.assert_array_equal(np.asarray(made), plain)
    monkeypatch.setattr(
        functional, "scaled_dot_product_attention", lambda *a, **k: own(*a, **k) * 1.5
    )
    with pytest.raises(VerificationError, match="differs from the pipeline's own"):
        probe.profile(image, "fox", **QUIET)


def wrapped(function):
    def timed(*arguments, **named):
        return function(*arguments, **named)

    return functools.wraps(function)(timed)


def test_an_adapter_whose_processor_was_patched(adapter_folders, image, monkeypatch):
    kind = transformer_flux.FluxIPAdapterAttnProcessor
    pipe = tiny_ip_adapter.load(adapter_folders)
    probe = Probe(pipe)
    monkeypatch.setattr(kind, "__call__", wrapped(kind.__call__))
    plain = call(pipe, probe, image)
    np.testing.assert_array_equal(np.asarray(probe.generate(image, "fox", **QUIET).image), plain)
    with pytest.raises(UnsupportedPipelineError, match=r"block 0 .*cannot be read"):
        probe.profile(image, "fox", **QUIET)
