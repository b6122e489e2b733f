"""FLUX.2 klein with a cache: what is dropped later, and what its design excludes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn

from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.interventions import (
    Keep,
    Knockout,
    Merge,
    Recast,
    Record,
    ReuseReference,
    WithoutReference,
)
from recast_probe.interventions.base import Intervention
from recast_probe.interventions.needs import Needs
from recast_probe.pipelines.flux2.klein_kv import CACHED, COMPUTED, PLAIN
from recast_probe.probe import Probe
from recast_probe.testing import tiny, tiny_flux2
from recast_probe.testing.images import assert_same_image

CALL = {"steps": 3, "seed": 1, "progress": False}
TOKENS = 16


@pytest.fixture(scope="module")
def probe():
    pipe = tiny_flux2.build_klein_kv()
    pipe.set_progress_bar_config(disable=True)
    return Probe(pipe)


@pytest.fixture(scope="module")
def image():
    return tiny.tiny_image()


class KeepFrom(Intervention):
    """Keeps other tokens in every step."""

    def __init__(self, *kept):
        self.kept = kept

    def needs(self, run):
        return Needs(drops=range(run.steps))

    def reference_tokens(self, step):
        kept = self.kept[step.step]
        return None if kept is None else np.asarray(kept, np.int64)


def cut_from_step_one(pipe, image, absent, monkeypatch):
    """The pipeline's own latents, with minus infinity at some cached keys, by diffusers alone."""
    from diffusers.models.transformers import transformer_flux2

    done = []

    def dispatch(query, key, value, **options):
        text = tiny_flux2.TEXT_TOKENS["klein"]
        if done:  # the first step has all of them
            mask = torch.ones(key.shape[1], dtype=torch.bool)
            mask[text + torch.tensor(absent)] = False
            options["attn_mask"] = mask[None, None, None]
        return dispatch_attention_fn(query, key, value, **options)

    monkeypatch.setattr(transformer_flux2, "dispatch_attention_fn", dispatch)
    made = pipe(
        image=[image],
        prompt="a red fox",
        num_inference_steps=3,
        height=64,
        width=64,
        max_sequence_length=tiny_flux2.TEXT_TOKENS["klein"],
        generator=torch.Generator().manual_seed(1),
        callback_on_step_end=lambda *_: done.append(1) or {},
    ).images[0]
    monkeypatch.undo()
    return made


def test_dropped_later_is_cut_in_the_cache(probe, image, monkeypatch):
    kept = tuple(range(0, TOKENS, 3))
    absent = sorted(set(range(TOKENS)) - set(kept))
    made = probe.generate(image, "a red fox", interventions=[KeepFrom(None, kept, kept)], **CALL)
    assert made.reference_tokens_per_step == (TOKENS, len(kept), len(kept))
    expected = cut_from_step_one(probe.pipe, image, absent, monkeypatch)
    assert_same_image(np.asarray(made.images[0]), np.asarray(expected), levels=1)
    plain = probe.generate(image, "a red fox", **CALL).images[0]
    assert not np.array_equal(np.asarray(plain), np.asarray(expected))


def test_tokens_that_step_0_did_not_have_cannot_come_back(probe, image):
    few, more = (0, 1, 2), (0, 1, 2, 3)
    for kept in ([few, more, more], [few, few, None]):
        with pytest.raises(InputError, match="token 3 was dropped in step 0"):
            probe.generate(image, "fox", interventions=[KeepFrom(*kept)], **CALL)
    made = probe.generate(image, "fox", interventions=[KeepFrom(more, more, few)], **CALL)
    assert made.reference_tokens_per_step == (4, 4, 3)


def test_recast_ranks_in_step_0_and_grows(probe, image):
    made = probe.generate(image, "a red fox", interventions=[Recast(budget=5)], **CALL)
    assert made.reference_tokens_per_step == (TOKENS, 5, 5)


def test_without_references_it_is_the_image_without_one(probe, image):
    dropped = probe.generate(image, "fox", interventions=[WithoutReference()], **CALL)
    none = probe.generate(None, "fox", height=64, width=64, **CALL)
    assert_same_image(np.asarray(dropped.images[0]), np.asarray(none.images[0]))


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (ReuseReference(), "by itself, so ReuseReference has nothing to do"),
        (Merge(4), "cannot be merged"),
        (Record(what="residual", tokens="generation"), "first step only"),
        (Record(what="attention output", tokens="reference"), "reference tokens attend to"),
        (Knockout("generation", "reference"), "reference tokens attend to"),
    ],
)
def test_what_its_design_excludes(probe, image, intervention, message):
    with pytest.raises(UnsupportedPipelineError, match=message):
        probe.generate(image, "fox", interventions=[intervention], **CALL)


def test_queries_of_the_reference_are_not_recorded(probe, image):
    with pytest.raises(InputError, match="queries='reference'"):
        probe.profile(image, "fox", queries="reference", **CALL)
    with pytest.raises(UnsupportedPipelineError, match="reference tokens attend to"):
        probe.attention_maps(image, "fox", group="reference", queries=0, **CALL)


def test_text_queries_and_single_tokens(probe, image):
    profile = probe.profile(image, "fox", queries="text", **CALL)
    whole = probe.profile(image, "fox", **CALL)
    everything = probe.attention_maps(image, "fox", queries=range(TOKENS), mean_over=(), **CALL)
    rows = everything.data.mean("query")
    np.testing.assert_allclose(rows, whole.dataset["score"].isel(branch=0), atol=1e-6)
    assert float(profile.dataset["score"].max()) > 0


def test_each_call_attends_at_its_place(probe, image):
    """The paths are those of the source; a call that is not reached would be an error."""
    family = probe.family
    (call, *_) = family.attention_calls()
    assert call.sites == (PLAIN, COMPUTED, CACHED)
    assert family.operations(call, {}) == PLAIN
    assert family.operations(call, {"num_ref_tokens": 16}) == COMPUTED


def test_accelerated_with_fewer_tokens(probe, image):
    pipe = tiny_flux2.build_klein_kv()
    pipe.set_progress_bar_config(disable=True)
    options = {
        "image": [image],
        "prompt": "a red fox",
        "num_inference_steps": 3,
        "height": 64,
        "width": 64,
        "max_sequence_length": tiny_flux2.TEXT_TOKENS["klein"],
    }
    with accelerate(pipe, interventions=[Keep((0, 5, 9))]) as accelerated:
        made = pipe(**options, generator=torch.Generator().manual_seed(1)).images[0]
    probed = probe.generate(image, "a red fox", interventions=[Keep((0, 5, 9))], **CALL)
    assert accelerated.report["reference_tokens_per_step"] == list(probed.reference_tokens_per_step)
    assert_same_image(np.asarray(made), np.asarray(probed.images[0]))
