"""One reversible call: the probe's image bit for bit, and the pipeline as it was afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch._dynamo.testing

from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.errors import InputError, UnsupportedPipelineError, VerificationError
from recast_probe.interventions import (
    Prune,
    Recast,
    ReuseReference,
    Similarity,
    StepCache,
    TokenCache,
    method,
)
from recast_probe.probe import Probe
from recast_probe.runs.verification import patches
from recast_probe.selection.budgets import Adaptive, Aligned, Fixed
from recast_probe.selection.mass import MassShare
from recast_probe.selection.rankings import random
from recast_probe.testing import tiny

STEPS = 5
GUIDED = {"true_cfg_scale": 2.0, "negative_prompt": "blurry"}


@pytest.fixture
def call(pipeline, probe):
    """Calls the pipeline itself, as a user would."""
    arguments_of = Probe(tiny.build_tiny_pipeline()).pipeline_arguments

    def make(image, prompt="fox", pipe=pipeline, **settings):
        arguments = arguments_of(image, prompt, steps=STEPS, **settings)
        return np.asarray(pipe(**arguments).images[0])

    return make


def state(pipeline):
    transformer = pipeline.transformer
    processors = [getattr(module, "processor", None) for _, module in transformer.named_modules()]
    return patches(transformer), [id(each) for each in processors], list(transformer.children())


ARMS = {
    "reuse": [ReuseReference()],
    "ranked, refreshed": [Recast(Adaptive(3, 9)), ReuseReference(refresh=[3])],
    "everything": [Recast(4, every=2), ReuseReference(start=2), StepCache(4)],
    "threshold": [Prune(random(16, 0), 5), StepCache(threshold=0.3)],
    "tokens": [TokenCache(interval=2, first_full=1)],
    "cosine": [Recast(5, ranking="cosine"), ReuseReference()],
}


@pytest.mark.parametrize("arguments", [{}, GUIDED])
@pytest.mark.parametrize("name", ARMS)
def test_three_attachments_make_one_image(probe, pipeline, image, call, name, arguments):
    before, interventions = state(pipeline), ARMS[name]
    settings = {"steps": STEPS, "progress": False, "interventions": interventions, **arguments}
    traced = probe.generate(image, "fox", **settings)
    hooked = probe.generate(image, "fox", attachment="hooks", **settings)
    with accelerate(pipeline, interventions=interventions) as accelerated:
        live = call(image, **arguments)
    assert state(pipeline) == before
    np.testing.assert_array_equal(np.asarray(hooked.image), np.asarray(traced.image))
    np.testing.assert_array_equal(live, np.asarray(traced.image))
    assert np.abs(live.astype(int) - call(image, **arguments)).max() > 0
    report = accelerated.report
    assert report["reference_tokens_per_step"] == list(traced.reference_tokens_per_step)
    assert not report["fp8_linears"]
    assert report["interventions"] == traced.provenance["interventions"]


def test_profiles_by_hooks_are_those_of_nnsight(probe, image):
    settings = {"steps": 3, "progress": False, "profile": True, **GUIDED}
    traced = probe.generate(image, "fox", **settings).profile.dataset
    hooked = probe.generate(image, "fox", attachment="hooks", **settings).profile.dataset
    for name in ("score", "mass", "conditional_entropy"):
        np.testing.assert_array_equal(hooked[name].values, traced[name].values)


def test_every_image_begins_anew(pipeline, image, call, plain):
    other = tiny.tiny_image(96, 64, seed=5)
    with accelerate(pipeline, "reuse", budget=0.5) as accelerated:
        alone = call(other)
        assert accelerated.report["layout"]["references"] == [[3, 4]]
        first, again = call(image), call(other)
        np.testing.assert_array_equal(again, alone)
        np.testing.assert_array_equal(call(image), first)
        assert accelerated.report["reference_tokens_per_step"] == [16, 8, 8, 8, 16]
        # what was kept is gone when the image is done
        (reuse,) = [each for each in accelerated._session.hooks if hasattr(each, "bytes")]
        assert reuse.bytes == 0
        # an image without a reference is made as ever
        np.testing.assert_array_equal(call(None), plain(None, "fox", steps=STEPS))
        assert accelerated.report is None
    np.testing.assert_array_equal(call(image), plain(image, "fox", steps=STEPS))


@pytest.mark.parametrize(
    ("settings", "stored"),
    [({}, [0, 4]), ({"refresh": 0}, [0]), ({"refresh": 2}, [0, 2, 4]), ({"refresh": [3]}, [0, 3])],
)
def test_keys_are_refreshed_by_default(pipeline, probe, image, call, settings, stored):
    with accelerate(pipeline, **settings) as accelerated:
        made = call(image)
        (facts,) = accelerated.report["interventions"]
    assert facts["run"]["stored_steps"] == stored
    reuse = ReuseReference(refresh=tuple(stored[1:]) or None)
    wanted = probe.generate(image, "fox", steps=STEPS, progress=False, interventions=[reuse])
    np.testing.assert_array_equal(made, np.asarray(wanted.image))


def test_a_run_that_broke_off_leaves_nothing(pipeline, image, call):
    def fail(pipeline, step, timestep, tensors):
        if step == 2:
            raise RuntimeError("stop here")
        return tensors

    before = state(pipeline)
    with accelerate(pipeline, "reuse+step-cache", budget=6) as accelerated:
        whole = call(image)
        with pytest.raises(RuntimeError, match="stop here"):
            call(image, callback_on_step_end=fail)
        np.testing.assert_array_equal(call(image), whole)
        with pytest.raises(RuntimeError, match="stop here"):
            call(image, callback_on_step_end=fail)
    assert state(pipeline) == before
    accelerated.restore()
    assert "restored" in repr(accelerated)


def test_attention_backends_set_meanwhile_stay(pipeline, image, call):
    with accelerate(pipeline, "reuse"):
        before = call(image)
        pipeline.transformer.set_attention_backend("_native_math")
        other = call(image)
    try:
        processor = pipeline.transformer.transformer_blocks[0].attn.processor
        assert "math" in str(processor._attention_backend).lower()
        assert np.abs(before.astype(int) - other).max() <= 3
    finally:
        pipeline.transformer.reset_attention_backend()


@pytest.mark.parametrize("first", ["offload", "accelerate"])
def test_offloaded_models(image, call, plain, first):
    """The hooks of enable_model_cpu_offload, which come off and on again after every image."""
    pipe = tiny.build_tiny_pipeline()
    with accelerate(pipe, "reuse+step-cache", budget=6):
        wanted = call(image, pipe=pipe)
    if first == "offload":
        pipe.enable_model_cpu_offload(device="cpu")
    with accelerate(pipe, "reuse+step-cache", budget=6):
        if first == "accelerate":
            pipe.enable_model_cpu_offload(device="cpu")
        assert hasattr(pipe.transformer, "_hf_hook")
        for _ in range(2):
            np.testing.assert_array_equal(call(image, pipe=pipe), wanted)
    found = [each for each in pipe.transformer.modules() if each._forward_hooks]
    assert not found
    np.testing.assert_array_equal(call(image, pipe=pipe), plain(image, "fox", steps=STEPS))


def test_adapters_of_low_rank(image, call):
    peft = pytest.importorskip("peft")
    pipe = tiny.build_tiny_pipeline()
    plain = call(image, pipe=pipe)
    config = peft.LoraConfig(r=2, target_modules=["to_k", "to_q"], init_lora_weights=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe.transformer.add_adapter(config)
    adapted = call(image, pipe=pipe)
    assert np.abs(adapted.astype(int) - plain).max() > 0
    with accelerate(pipe, interventions=[ReuseReference(refresh=1)]):
        np.testing.assert_array_equal(call(image, pipe=pipe), adapted)
    interventions = method("reuse", 5, Probe(pipe).layout(image))
    traced = Probe(pipe).generate(
        image, "fox", steps=STEPS, progress=False, interventions=interventions
    )
    with accelerate(pipe, "reuse", budget=5, refresh=0):
        np.testing.assert_array_equal(call(image, pipe=pipe), np.asarray(traced.image))
        pipe.transformer.disable_adapters()
        assert np.abs(call(image, pipe=pipe).astype(int) - np.asarray(traced.image)).max() > 0


def test_compiled_blocks(image, call):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    pipe = tiny.build_tiny_pipeline()
    settings = {"budget": Adaptive(3, 9), "align": 8, "refresh": [3]}
    with accelerate(pipe, "reuse", **settings) as accelerated:
        wanted = call(image, pipe=pipe)
        assert accelerated.report["reference_tokens_per_step"] == [16, 8, 8, 16, 16]
    pipe.transformer.compile_repeated_blocks(backend=counter, fullgraph=True, dynamic=False)
    with accelerate(pipe, "reuse", **settings):
        for _ in range(2):
            np.testing.assert_array_equal(call(image, pipe=pipe), wanted)
    # 8 and 16 tokens; double blocks once, single ones twice, since the first of them is given a
    # tensor of other strides; steps that store or read run uncompiled
    assert counter.frame_count == 2 * (1 + 2)
    torch._dynamo.reset()


def test_aligned_budgets():
    aligned = Aligned(Adaptive(256, 1024), 128, 4096)
    assert set(aligned.schedule(28)) == {256 + 128 * i for i in range(7)}
    assert (aligned.schedule(28) >= Adaptive(256, 1024).schedule(28)).all()
    assert Aligned(Fixed(70), 64, 100).tokens_at(0, 1) == 100
    with pytest.raises(InputError, match="keeps 101 tokens in step 0, but there are 100"):
        Aligned(Fixed(101), 64, 100).tokens_at(0, 1)
    with pytest.raises(InputError, match="no budget that can be aligned"):
        Aligned(3, 64, 100)
    with pytest.raises(InputError, match="multiple must be a whole number"):
        Aligned(Fixed(3), 0, 100)


def test_what_cannot_be(pipeline, adapter_pipeline, image, call):
    before = state(pipeline)
    with pytest.raises(InputError, match="no method 'fast' for accelerate; there is full"):
        accelerate(pipeline, "fast")
    with pytest.raises(InputError, match=r"up to 1, not 1\.5"):
        accelerate(pipeline, "reuse", budget=1.5)
    with pytest.raises(InputError, match="cannot be aligned"):
        accelerate(pipeline, "recast", budget=MassShare(0.5), align=64)
    with pytest.raises(InputError, match="takes no refresh"):
        accelerate(pipeline, "recast", refresh=4)
    with pytest.raises(InputError, match="takes no such number"):
        accelerate(pipeline, "reuse", computed=4)
    with pytest.raises(InputError, match="is not an intervention"):
        accelerate(pipeline, interventions=["reuse"])
    with pytest.raises(UnsupportedPipelineError, match="by nnsight only"):
        accelerate(adapter_pipeline, "recast")
    assert state(pipeline) == before
    with accelerate(pipeline, interventions=[ReuseReference(), Similarity(step=2)]):
        with pytest.raises(InputError, match="Similarity needs queries or hidden states"):
            call(image)
        with pytest.raises(UnsupportedPipelineError, match="accelerated already"):
            accelerate(pipeline)
    assert state(pipeline) == before
    compiled = tiny.build_tiny_pipeline()
    compiled.transformer.compile(backend="eager")
    with pytest.raises(UnsupportedPipelineError, match="compiled as a whole"):
        accelerate(compiled)


def test_calls_that_are_not_the_pipelines(pipeline, image, call):
    seen = []
    handle = pipeline.transformer.register_forward_pre_hook(
        lambda _, __, inputs: seen.append(inputs), with_kwargs=True
    )
    try:
        with accelerate(pipeline, "reuse"):
            call(image)
            with pytest.raises(VerificationError, match="does not call it so"):
                pipeline.transformer(**seen[0])
    finally:
        handle.remove()
