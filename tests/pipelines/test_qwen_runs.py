"""Whole runs of Qwen-Image-Edit: untouched images, true statistics, and interventions."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.interventions import (
    Intervention,
    Keep,
    Knockout,
    Patch,
    Prune,
    Recast,
    Record,
    ReuseReference,
    StepCache,
    TokenCache,
    WithoutReference,
)
from recast_probe.interventions.drift import RecordDrift
from recast_probe.runs.verification import patches
from recast_probe.selection.rankings import cross_image, random
from recast_probe.testing import tiny, tiny_qwen

QUIET = {"steps": 3, "progress": False, **tiny_qwen.SIZE}
# of another length than the prompt, so that image tokens stand elsewhere in its branch
GUIDED = {"negative_prompt": "blurry, of low quality", "true_cfg_scale": 3.0}
ONE, TWO = tiny.tiny_image(90, 60), tiny.tiny_image(40, 96, seed=1)


@pytest.fixture(params=["edit", "plus"])
def name(request):
    return request.param


@pytest.fixture
def probe(qwen_probes, name):
    return qwen_probes[name]


@pytest.fixture
def image(name):
    return [ONE, TWO] if name == "plus" else ONE


@pytest.fixture
def edit(qwen_probes):
    return qwen_probes["edit"]


def asked(probe, image, **settings):
    """Arguments of the pipeline, as the probe gives them."""
    settings = {name: value for name, value in {**QUIET, **settings}.items() if name != "progress"}
    return probe.pipeline_arguments(image, "fox", **settings)


def plain(probe, image, **settings):
    return np.asarray(probe.pipe(**asked(probe, image, **settings)).images[0])


def run(probe, image, *interventions, **settings):
    return probe.generate(image, "fox", interventions=interventions, **{**QUIET, **settings})


def pixels(result) -> np.ndarray:
    return np.asarray(result.image).astype(int)


def state(pipeline):
    transformer = pipeline.transformer
    return patches(transformer), [block.attn.processor for block in transformer.transformer_blocks]


class Watch(Intervention):
    """Keeps what attention was given and what it gave, by step, branch and block."""

    def __init__(self) -> None:
        self.seen: dict = {}

    @contextmanager
    def attached(self, family, run):
        self.run = run
        yield self

    def begin_call(self, step, branch, layout):
        self.now = (step, branch, layout)

    def changes_attention(self, block):
        return True

    def attention_inputs(self, block, inputs):
        self.inputs = inputs
        return inputs

    def attention_output(self, block, output):
        step, branch, layout = self.now
        self.seen[step, branch, block] = (layout, self.inputs, output)
        return output


def logits(inputs) -> torch.Tensor:
    """float64, (head, query, key)."""
    query, key = (each[0].double().transpose(0, 1) for each in (inputs.query, inputs.key))
    return query @ key.transpose(1, 2) / query.shape[-1] ** 0.5


def test_a_result_tells_which_text_tokens_are_of_the_pictures(probe, image, name):
    profile = probe.profile(image, "fox", profile_steps=0, **QUIET, **GUIDED)
    text = profile.provenance["text"]
    assert text["conditional"]["tokens"] == profile.layout.text < text["unconditional"]["tokens"]
    # "Picture 1: <vision_start>" stands before them where there may be several
    assert text["conditional"]["vision_tokens"] == ("1-6" if name == "edit" else "6-11, 19-22")


ARMS = {
    "recast, reuse, step cache": [Recast(9, blocks="all", every=2), ReuseReference(start=2)],
    "reuse, refreshed": [Prune(random(54, 0), 20), ReuseReference(refresh=[2]), StepCache(3)],
    "threshold": [Prune(random(54, 0), 5), StepCache(threshold=0.3)],
    "cosine": [Recast(5, blocks="all", ranking="cosine"), ReuseReference()],
    "cut": [
        Keep(range(0, 54, 2), start=1),
        Knockout("reference", "generation", blocks=1),
        Knockout("vision", "generation", steps=[1]),
    ],
}


@pytest.mark.parametrize("arm", ARMS)
def test_three_attachments_make_one_image(edit, arm):
    settings = GUIDED if arm != "threshold" else {}
    before = state(edit.pipe)
    steps = {"steps": 4}
    traced = run(edit, ONE, *ARMS[arm], **settings, **steps)
    hooked = run(edit, ONE, *ARMS[arm], attachment="hooks", **settings, **steps)
    np.testing.assert_array_equal(pixels(hooked), pixels(traced))
    assert hooked.reference_tokens_per_step == traced.reference_tokens_per_step
    full = plain(edit, ONE, **settings, **steps)
    assert np.abs(pixels(traced) - full).max() > 0
    if arm != "cut":  # which text tokens are vision tokens is not known without the prompt
        arguments = asked(edit, ONE, **settings, **steps)
        with accelerate(edit.pipe, interventions=ARMS[arm]) as accelerated:
            live = np.asarray(edit.pipe(**arguments).images[0])
        np.testing.assert_array_equal(live, pixels(traced))
        report = accelerated.report
        assert report["reference_tokens_per_step"] == list(traced.reference_tokens_per_step)
    assert state(edit.pipe) == before


def test_hooked_processors_are_the_originals_to_the_last_bit(probe, image):
    """Where nothing is asked of them, and where they hand attention on."""
    wanted = plain(probe, image, **GUIDED)
    for interventions in ((), (Watch(),)):
        found = run(probe, image, *interventions, attachment="hooks", **GUIDED)
        np.testing.assert_array_equal(np.asarray(found.image), wanted)


def test_accelerated_images_begin_anew(qwen_probes):
    pipe = qwen_probes["plus"].pipe
    arguments = asked(qwen_probes["plus"], [ONE, TWO], **GUIDED)

    def image():
        arguments["generator"].manual_seed(0)
        return np.asarray(pipe(**arguments).images[0])

    before, full = state(pipe), image()
    with accelerate(pipe, "reuse", budget=0.25) as accelerated:
        first = image()
        np.testing.assert_array_equal(image(), first)
        layout = accelerated.report["layout"]
        assert layout["references"] == [[6, 9], [12, 5]]
        with pytest.raises(UnsupportedPipelineError, match="accelerated already"):
            accelerate(pipe, "reuse")
    assert accelerated.report["reference_tokens_per_step"] == [114, 29, 29]
    assert np.abs(first.astype(int) - full).max() > 0
    assert state(pipe) == before
    np.testing.assert_array_equal(image(), full)


def test_cut_edges_are_the_dense_softmax_without_them(qwen_probes):
    """Of one of two references, in both branches, beside dropped tokens."""
    probe, watch = qwen_probes["plus"], Watch()
    kept = np.r_[0:54:3, 60, 70, 80]
    cuts = [
        Knockout("reference_1", "generation"),
        Knockout("vision", "generation", heads=1),
        Knockout("generation", "text", tokens=[0, 5]),
    ]
    result = run(probe, [ONE, TWO], Keep(kept), *cuts, watch, **GUIDED)
    assert result.reference_tokens_per_step == (21,) * 3
    for (step, branch, block), (layout, inputs, output) in watch.seen.items():
        scores = logits(inputs)
        generation, reference = layout.span("generation"), layout.span("reference")
        scores[:, generation, reference.start + 18 :] = -torch.inf
        vision = torch.as_tensor(watch.run.vision()[branch][0]).nonzero()[:, 0]
        scores[1, generation.start : generation.stop, vision] = -torch.inf
        for key in (0, 5):
            scores[:, : layout.text, generation.start + key] = -torch.inf
        value = inputs.value[0].double().transpose(0, 1)
        wanted = (scores.softmax(-1) @ value).transpose(0, 1)
        error = (output[0].double() - wanted).abs().max() / wanted.abs().max()
        assert error < 1e-6, (step, branch, block)


def test_no_reference_tokens_is_all_edges_cut_and_the_pictures_in_the_text_stay(edit):
    settings = {**GUIDED, "steps": 2}
    none = pixels(run(edit, ONE, WithoutReference(), **settings))
    both = [Knockout("reference", "generation"), Knockout("reference", "text")]
    assert np.abs(pixels(run(edit, ONE, *both, **settings)) - none).max() <= 1
    # another reference of the same shape is seen through the text alone
    other = tiny.tiny_image(90, 60, seed=7)
    through_text = pixels(run(edit, other, WithoutReference(), **settings))
    assert np.abs(through_text - none).max() > 1
    blind = [*both, Knockout("vision", "generation"), Knockout("vision", "text")]
    assert np.abs(pixels(run(edit, ONE, *blind, **settings)) - none).max() > 1


def test_groups_of_text(edit):
    whole = pixels(run(edit, ONE, Knockout("text", "generation")))
    parts = [Knockout(part, "generation") for part in ("vision", "prompt", "padding")]
    assert np.abs(pixels(run(edit, ONE, *parts)) - whole).max() <= 1
    with pytest.raises(InputError, match="tokens holds 40"):
        run(edit, ONE, Knockout("text", "generation", tokens=[0, 40]))


def test_computed_steps_are_told_by_branch(edit):
    skipped = run(edit, ONE, StepCache(2), **GUIDED)
    facts = skipped.provenance["interventions"][0]["run"]["computed_steps"]
    assert facts == {"conditional": [0, 2], "unconditional": [0, 2]}


def test_patched_activations_of_the_same_run_change_nothing_and_of_another_do(edit):
    other = tiny.tiny_image(90, 60, seed=7)
    kinds = ("values", "residual", "embeddings")
    settings, watch = {**GUIDED, "steps": 2}, Watch()
    wanted = plain(edit, ONE, **settings)
    same = run(edit, ONE, Record(kinds), watch, **settings).activations
    foreign = edit.record(other, "fox", **{**QUIET, **settings}, what=kinds)
    unchanged = run(edit, ONE, Patch(same), **settings)
    np.testing.assert_array_equal(np.asarray(unchanged.image), wanted)
    changed = run(edit, ONE, Patch(foreign), **settings)
    assert np.abs(pixels(changed) - wanted).max() > 0
    # the values are those of the reference tokens in either branch, though they stand elsewhere
    for (step, branch, block), (layout, inputs, _) in watch.seen.items():
        (place,) = (p for p in same.values if p == ("values", branch, step, block))
        torch.testing.assert_close(
            same.values[place], inputs.value[:, layout.span("reference")], rtol=0, atol=0
        )
    with pytest.raises(InputError, match="text tokens, so text tokens do not correspond"):
        run(edit, ONE, Record(tokens="text"), **GUIDED)


def test_each_of_two_references_can_be_kept(qwen_probes):
    probe, image = qwen_probes["plus"], [ONE, TWO]
    profile = probe.profile(image, "fox", blocks="all", **QUIET)
    assert set(np.unique(profile.dataset["reference"].values)) == {0, 1}
    ranking = cross_image(profile, blocks="all")
    first = run(probe, image, Prune(ranking, 30))
    assert first.reference_tokens_per_step == (30,) * 3
    alone = [pixels(run(probe, image, Keep(span))) for span in (range(54), range(54, 114))]
    assert np.abs(alone[0] - alone[1]).max() > 1


def test_what_it_cannot_do(edit):
    with pytest.raises(UnsupportedPipelineError, match="cannot be cached by token"):
        run(edit, ONE, TokenCache())


def test_stored_keys_and_their_drift_are_those_of_the_branch(edit):
    """Reference tokens stand elsewhere in the unconditional branch."""
    reused, plainly = Watch(), Watch()
    kept = [3, 17, 40]
    run(edit, ONE, Keep(kept, start=1), ReuseReference(), reused, **GUIDED)
    errors = run(edit, ONE, RecordDrift(0), plainly, **GUIDED).outcomes[0]
    for branch in ("conditional", "unconditional"):
        for block in range(tiny_qwen.BLOCKS):
            layout, stored, _ = reused.seen[0, branch, block]
            _, later, _ = reused.seen[2, branch, block]
            reference = layout.span("reference")
            for name in ("key", "value"):
                wanted = getattr(stored, name)[:, reference][:, kept]
                torch.testing.assert_close(getattr(later, name)[:, -3:], wanted, rtol=0, atol=0)
            assert later.query.shape[1] == layout.text + 6
            old, new = (
                plainly.seen[step, branch, block][1].key[:, reference].double() for step in (0, 2)
            )
            moved = float((old - new).norm() / new.norm())
            assert errors[0, branch]["key"][2, block] == pytest.approx(moved, rel=1e-6)


def test_maps_of_single_tokens(edit):
    maps = edit.attention_maps(ONE, "fox", [1, 4], **QUIET, **GUIDED)
    watch = Watch()
    run(edit, ONE, watch, **GUIDED)
    layout, inputs, _ = watch.seen[1, "conditional", 2]
    rows = logits(inputs).softmax(-1)[:, layout.span("generation")]
    wanted = rows[:, [1, 4], layout.span("reference")]
    np.testing.assert_allclose(maps.data.sel(step=1, block=2).values, wanted, rtol=1e-4)
