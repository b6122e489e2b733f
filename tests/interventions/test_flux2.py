"""Interventions on FLUX.2 and klein, each against a plain run that has it in its own inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch._dynamo.testing

from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.attention import dense_attention
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.interventions import (
    Keep,
    Knockout,
    Merge,
    Patch,
    Prune,
    Recast,
    ReuseReference,
    Similarity,
    StepCache,
    TokenCache,
    WithoutReference,
)
from recast_probe.probe import Probe
from recast_probe.profiles.activations import HookPoint
from recast_probe.runs.verification import patches
from recast_probe.selection.budgets import Adaptive
from recast_probe.selection.merging import match
from recast_probe.selection.rankings import random
from recast_probe.testing import tiny, tiny_flux2

TWO = [tiny.tiny_image(), tiny.tiny_image(96, 64, seed=4)]
TOKENS = 40
QUIET = {"steps": 3, "progress": False}


def pixels(result) -> np.ndarray:
    return np.asarray(result.image).astype(int)


def plain(probe, images=TWO, steps=3, **settings) -> torch.Tensor:
    """Latents of a plain run after every step, float32 (step, token, channel)."""
    return run_latents(lambda note: probe.pipe(**_asked(probe, images, steps), **note, **settings))


def intervened(probe, interventions, images=TWO, **settings) -> torch.Tensor:
    arguments = {**QUIET, **settings}
    return run_latents(
        lambda note: probe.generate(
            images, "a red fox", interventions=interventions, **arguments, **note
        )
    )


def _asked(probe, images, steps):
    return probe.pipeline_arguments(images, "a red fox", steps=steps)


def run_latents(run) -> torch.Tensor:
    seen = []

    def keep(pipeline, step, timestep, tensors):
        seen.append(tensors["latents"][0].clone())
        return {}

    run({"callback_on_step_end": keep})
    return torch.stack(seen)


@pytest.mark.parametrize("kept", [[2, 3, 11, 20, 39], list(range(16))])
def test_pruned_tokens_are_truly_absent(flux2_probe, monkeypatch, kept):
    """Bit for bit a plain run whose pipeline never made them, with the positions of the others."""
    pipeline = flux2_probe.pipe
    found = intervened(flux2_probe, [Keep(tuple(kept))])
    make = pipeline.prepare_image_latents

    def fewer(*arguments, **named):
        latents, positions = make(*arguments, **named)
        return latents[:, kept], positions[:, kept]

    whole = plain(flux2_probe)
    monkeypatch.setattr(pipeline, "prepare_image_latents", fewer)
    assert torch.equal(found, plain(flux2_probe))
    assert (found - whole).abs().max() > 1e-2


def test_without_reference(flux2_probe):
    found = intervened(flux2_probe, [WithoutReference()])
    size = {"height": 64, "width": 64}
    expected = run_latents(
        lambda note: flux2_probe.generate(None, "a red fox", **QUIET, **size, **note)
    )
    assert torch.equal(found, expected)


def test_knockout_of_one_reference_is_a_mask_of_minus_infinity(flux2_probe):
    """Against diffusers' own masked attention, through its own attention_kwargs."""
    layout = flux2_probe.layout(TWO)
    mask = torch.zeros(1, 1, layout.total, layout.total)
    mask[..., layout.span("generation"), layout.span("reference_1")] = -torch.inf
    expected = plain(flux2_probe, attention_kwargs={"attention_mask": mask})
    found = intervened(flux2_probe, [Knockout("reference_1", "generation")])
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    assert (found - plain(flux2_probe)).abs().max() > 1e-2


def test_knockout_of_padding_is_in_float64_what_it_is_in_the_run(flux2_probe, monkeypatch):
    family, calls = type(flux2_probe.family), []
    read = family.read_attention

    def noting(self, query, key, value, layout, **settings):
        found = read(self, query, key, value, layout, **settings)
        calls.append((query, key, value, layout, settings["cuts"], found.output))
        return found

    monkeypatch.setattr(family, "read_attention", noting)
    cuts = [Knockout("reference", "padding"), Knockout("prompt", "reference_1", heads=0)]
    flux2_probe.generate(TWO, "a red fox", interventions=cuts, steps=1, progress=False)
    branches = len(flux2_probe.family.branch_names({}))
    assert len(calls) == tiny.BLOCKS * branches
    for query, key, value, layout, chosen, output in calls:
        expected = dense_attention(query, key, value, layout, cuts=chosen)
        torch.testing.assert_close(output.double(), expected.output, atol=1e-6, rtol=1e-6)
    # the prompts of the branches differ in length, and so do their cuts
    lengths = {len(chosen[0].queries) for *_, chosen, _ in calls}
    assert len(lengths) == branches


def test_merged_tokens_are_means_weighted_by_size(flux2_probe, monkeypatch):
    found = intervened(flux2_probe, [Merge(12)])
    pipeline, layout = flux2_probe.pipe, flux2_probe.layout(TWO)
    make, masks = pipeline.prepare_image_latents, []

    def merged(*arguments, **named):
        latents, positions = make(*arguments, **named)
        groups = match(latents[0], layout.references, 2).groups(12)
        masks.append(torch.zeros(1, 1, 1, layout.total - TOKENS + 12))
        masks[0][..., -12:] = groups.sizes.float().log()
        return groups.mean(latents), positions[:, groups.kept]

    monkeypatch.setattr(pipeline, "prepare_image_latents", merged)
    with pytest.MonkeyPatch.context() as patch:
        forward = pipeline.transformer.forward
        patch.setattr(
            pipeline.transformer,
            "forward",
            lambda **named: forward(
                **named | {"joint_attention_kwargs": {"attention_mask": masks[0]}}
            ),
        )
        expected = plain(flux2_probe)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


ARMS = {
    "reuse": [ReuseReference()],
    "everything": [Recast(4, every=2), ReuseReference(start=2), StepCache(4)],
    "threshold": [Prune(random(TOKENS, 0), 5), StepCache(threshold=0.3)],
    "tokens": [Prune(random(TOKENS, 0), Adaptive(3, 9)), TokenCache(interval=2, first_full=1)],
    "cosine": [Recast(5, ranking="cosine"), ReuseReference(refresh=[3])],
}


@pytest.mark.parametrize("name", ARMS)
def test_three_attachments_make_one_image(flux2_probe, name):
    pipeline, interventions = flux2_probe.pipe, ARMS[name]
    before = patches(pipeline.transformer)
    processors = dict(pipeline.transformer.attn_processors)
    settings = {"steps": 5, "progress": False, "interventions": interventions}
    traced = flux2_probe.generate(TWO, "a red fox", **settings)
    hooked = flux2_probe.generate(TWO, "a red fox", attachment="hooks", **settings)
    with accelerate(pipeline, interventions=interventions) as accelerated:
        with pytest.raises(UnsupportedPipelineError, match="accelerated already"):
            accelerate(pipeline)
        live = pipeline(**_asked(flux2_probe, TWO, 5)).images[0]
    assert patches(pipeline.transformer) == before
    assert dict(pipeline.transformer.attn_processors) == processors
    np.testing.assert_array_equal(pixels(hooked), pixels(traced))
    np.testing.assert_array_equal(np.asarray(live), np.asarray(traced.image))
    counts = traced.reference_tokens_per_step
    assert accelerated.report["reference_tokens_per_step"] == list(counts)
    untouched = np.asarray(pipeline(**_asked(flux2_probe, TWO, 5)).images[0])
    assert np.abs(pixels(traced) - untouched).max() > 0


def test_compiled_blocks():
    torch._dynamo.reset()
    pipe, counter = tiny_flux2.build_klein(), torch._dynamo.testing.CompileCounter()
    probe, settings = Probe(pipe), {"budget": Adaptive(3, 9), "align": 8, "refresh": [3]}
    asked = [_asked(probe, TWO, 5) for _ in range(2)]
    with accelerate(pipe, "reuse", **settings) as accelerated:
        wanted = np.asarray(pipe(**asked[0]).images[0])
        assert accelerated.report["reference_tokens_per_step"] == [TOKENS, 8, 8, TOKENS, 16]
    pipe.transformer.compile_repeated_blocks(backend=counter, fullgraph=True, dynamic=False)
    with accelerate(pipe, "reuse", **settings):
        np.testing.assert_array_equal(np.asarray(pipe(**asked[1]).images[0]), wanted)
    # both kinds of block, with 8 and with 16 tokens; steps that store run uncompiled
    assert counter.frame_count == 4
    torch._dynamo.reset()


@pytest.mark.parametrize("score", ["attention", "key_norm", "random"])
def test_a_token_cache_that_is_always_full_is_the_plain_run(flux2_probe, score):
    always = intervened(flux2_probe, [TokenCache(interval=1, score=score)])
    assert torch.equal(always, plain(flux2_probe))


def test_activations_of_a_run_put_back_are_the_run(flux2_probe):
    what = ("keys", "values", "attention output", "residual", "embeddings")
    recorded = flux2_probe.record(TWO, "a red fox", what, tokens="all", **{**QUIET, "steps": 2})
    expected = plain(flux2_probe, steps=2)
    for kind in what:
        found = intervened(flux2_probe, [Patch(recorded, kind)], steps=2)
        assert torch.equal(found, expected), kind


def test_activations_of_one_reference_move_into_another_run(flux2_probe):
    """All that leaves the last block decides the last step's velocity."""
    others = [tiny.tiny_image(seed=8), TWO[1]]
    recorded = flux2_probe.record(TWO, "a red fox", tokens="all", blocks=4, **QUIET)
    found = intervened(flux2_probe, [Patch(recorded)], images=others)
    torch.testing.assert_close(found, plain(flux2_probe), atol=1e-6, rtol=0)
    first = flux2_probe.record(TWO, "fox", "keys", "reference_0", steps=2, progress=False)
    assert len(first.positions) == 16
    patched = intervened(flux2_probe, [Patch(first)], images=others, steps=2)
    assert (patched - plain(flux2_probe, others, 2)).abs().max() > 1e-3


def test_similarity_is_the_cosine_of_the_residual_states(flux2_probe):
    similarity = Similarity(blocks=[1, 3])
    result = flux2_probe.generate(TWO, "a red fox", interventions=[similarity], **QUIET)
    recorded = flux2_probe.record(TWO, "a red fox", tokens="all", record_steps=0, **QUIET)
    text = recorded.layout.text
    for place, block in enumerate((1, 3)):
        states = recorded.select(HookPoint("residual", "conditional", 0, block), recorded.positions)
        mean = states[0, text : text + 16].mean(0)
        cosine = torch.cosine_similarity(mean[None], states[0, text + 16 :], dim=-1)
        np.testing.assert_allclose(result.similarity[0][0, place], cosine, rtol=1e-4, atol=1e-6)


def test_a_mask_of_ones_own_stands_in_the_way_of_merging(flux2_probe):
    mask = {"attention_mask": torch.zeros(1, 1, 1, 1)}
    with pytest.raises(InputError, match="holds an attention_mask already"):
        flux2_probe.generate(TWO, "fox", interventions=[Merge(12)], attention_kwargs=mask, **QUIET)
