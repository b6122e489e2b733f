"""Weighed attention is the weighed softmax of float64, and nothing changes at a factor of 1."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recast_probe import Probe
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.interventions import Keep, Knockout, Merge, ReuseReference, TokenCache, Weigh
from recast_probe.interventions.base import CallHook, Intervention
from recast_probe.testing import tiny, tiny_qwen

QUIET = {"steps": 3, "progress": False}
TEXT, GENERATION = tiny.TEXT_TOKENS, 16
ROWS = slice(TEXT, TEXT + GENERATION)


def pixels(result) -> np.ndarray:
    return np.asarray(result.image).astype(int)


class Watch(Intervention):
    """Keeps what attention was given before it was weighed, and its output."""

    def __init__(self):
        self.inputs, self.outputs = {}, {}

    def hook(self, run):
        return WatchHook(self)


class WatchHook(CallHook):
    def __init__(self, watch):
        self.inputs, self.outputs = watch.inputs, watch.outputs

    def changes_attention(self, block):
        return True

    def attention_inputs(self, block, inputs):
        self.inputs[self.step, self.branch, block] = inputs
        return inputs

    def attention_output(self, block, output):
        self.outputs[self.step, self.branch, block] = output
        return output


def weighed(logits, mode, factor):
    return logits * factor if mode == "scale" else logits + math.log(factor)


def dense(inputs, rows, columns, mode, factor, heads=slice(None)):
    """float64 probabilities (batch, head, query, key) and the output of the weighed softmax."""
    query, key, value = (
        each.double().transpose(1, 2) for each in (inputs.query, inputs.key, inputs.value)
    )
    logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    own = logits[:, heads, rows]
    own[..., columns] = weighed(own[..., columns], mode, factor)
    logits[:, heads, rows] = own
    if inputs.logit_bias is not None:
        logits += inputs.logit_bias.double()
    for cut in inputs.cuts:
        logits[:, :, cut.queries[:, None], cut.keys] = -torch.inf
    probability = logits.softmax(-1)
    return probability, (probability @ value).transpose(1, 2)


def check(watch, calls, *arguments, **settings):
    assert len(watch.outputs) == calls
    for place, inputs in watch.inputs.items():
        _, wanted = dense(inputs, *arguments, **settings)
        found = watch.outputs[place].double()
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


FACTORS = [("scale", 0.5), ("scale", 2.0), ("scale", -1.0), ("bias", 0.25), ("bias", 3.0)]


@pytest.mark.parametrize("attachment", ["nnsight", "hooks"])
def test_a_factor_of_1_is_the_plain_image(probe, plain, image, attachment):
    nothing = [Weigh("reference", 1), Weigh("text", 1.0, mode="bias"), Weigh("text", 3, heads=())]
    result = probe.generate(image, "fox", interventions=nothing, attachment=attachment, **QUIET)
    np.testing.assert_array_equal(pixels(result), plain(image, "fox", steps=3))


@pytest.mark.parametrize(("mode", "factor"), FACTORS)
def test_against_a_dense_softmax_and_its_profile(probe, image, mode, factor):
    watch, weigh = Watch(), Weigh("reference", factor, mode=mode)
    settings = {"true_cfg_scale": 2.0, "negative_prompt": "blur", **QUIET}
    probe.generate(image, "fox", interventions=[weigh, watch], **settings)
    check(watch, 3 * 2 * tiny.BLOCKS, ROWS, slice(ROWS.stop, None), mode, factor)
    watch = Watch()
    result = probe.generate(image, "fox", interventions=[watch, weigh], profile=True, **QUIET)
    check(watch, 3 * tiny.BLOCKS, ROWS, slice(ROWS.stop, None), mode, factor)
    for (step, _, block), inputs in watch.inputs.items():
        shares, _ = dense(inputs, ROWS, slice(ROWS.stop, None), mode, factor)
        wanted = shares[0, :, ROWS, ROWS.stop :].mean(1)
        found = result.profile.score.sel(step=step, block=block)
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize(("mode", "factor"), FACTORS)
def test_chosen_tokens_queries_heads_blocks_and_steps(probe, image, mode, factor):
    watch = Watch()
    chosen = {"to_group": "text", "tokens": [7, 2], "heads": 1, "blocks": "single", "steps": [1]}
    weigh = Weigh("generation", factor, mode=mode, **chosen)
    probe.generate(image, "fox", interventions=[weigh, watch], **QUIET)
    for (step, _, block), inputs in watch.inputs.items():
        own = factor if step == 1 and block in (2, 3, 4) else 1
        rows, columns = slice(0, TEXT), [TEXT + 2, TEXT + 7]
        _, wanted = dense(inputs, rows, columns, mode if own != 1 else "scale", own, slice(1, 2))
        found = watch.outputs[step, "conditional", block].double()
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)


def test_a_bias_of_factor_0_is_the_cut(probe, image):
    settings = {"tokens": [3, 4, 9], "heads": 0, "steps": [0, 2]}
    cut = [Knockout("reference", "generation", **settings)]
    weighed = [Weigh("reference", 0, mode="bias", **settings)]
    one, other = (
        probe.generate(image, "fox", interventions=each, profile=True, **QUIET)
        for each in (cut, weighed)
    )
    np.testing.assert_array_equal(pixels(one), pixels(other))
    np.testing.assert_array_equal(one.profile.score, other.profile.score)
    small = [Weigh("reference", 1e-9, mode="bias", **settings)]
    close = pixels(probe.generate(image, "fox", interventions=small, **QUIET))
    assert np.abs(close - pixels(one)).max() <= 1


def test_two_weights_multiply(probe, image):
    """In whatever order; and a weight of 2 is that of two copies of every token."""
    whole = [Weigh("reference", 6, mode="bias")]
    parts = [Weigh("reference_0", 2, mode="bias"), Weigh("reference", 3, mode="bias")]
    images = [
        pixels(probe.generate(image, "fox", interventions=each, **QUIET))
        for each in (whole, parts, parts[::-1])
    ]
    assert np.abs(images[0] - images[1]).max() <= 1
    assert np.abs(images[0] - images[2]).max() <= 1
    plainly = pixels(probe.generate(image, "fox", **QUIET))
    assert np.abs(images[0] - plainly).max() > 1


@pytest.mark.parametrize(("mode", "factor"), FACTORS)
def test_beside_pruning_and_cuts(probe, image, mode, factor):
    """Token indices are those of the full reference; cut keys stay cut."""
    kept, watch = (1, 4, 5, 9, 15), Watch()
    cut = Knockout("reference", "generation", tokens=[5])
    weigh = Weigh("reference", factor, tokens=[2, 4, 9], mode=mode)
    probe.generate(image, "fox", interventions=[weigh, Keep(kept), cut, watch], **QUIET)
    check(watch, 3 * tiny.BLOCKS, ROWS, [ROWS.stop + 1, ROWS.stop + 3], mode, factor)
    assert all(len(each.cuts) == 1 for each in watch.inputs.values())


@pytest.mark.parametrize(("mode", "factor"), FACTORS)
@pytest.mark.parametrize("proportional", [True, False])
def test_beside_merging(probe, image, mode, factor, proportional):
    """All merged tokens are weighed, on top of the weight that their sizes give them."""
    watch, merge = Watch(), Merge(6, proportional=proportional)
    weigh = Weigh("reference", factor, mode=mode)
    probe.generate(image, "fox", interventions=[weigh, merge, watch], **QUIET)
    given = next(iter(watch.inputs.values()))
    assert given.key.shape[1] == ROWS.stop + 6
    assert (given.logit_bias is not None) is proportional
    check(watch, 3 * tiny.BLOCKS, ROWS, slice(ROWS.stop, None), mode, factor)


def test_beside_reuse(probe, image):
    watch = Watch()
    interventions = [ReuseReference(), Weigh("reference", 2.0, mode="bias"), watch]
    probe.generate(image, "fox", interventions=interventions, **QUIET)
    check(watch, 3 * tiny.BLOCKS, ROWS, slice(ROWS.stop, None), "bias", 2.0)


def test_merged_tokens_where_the_transformer_takes_no_mask():
    probe = Probe(tiny_qwen.build_tiny_pipeline())
    image, settings = tiny.tiny_image(), {**QUIET, **tiny_qwen.SIZE}
    tokens = probe.layout(image, **tiny_qwen.SIZE).reference_tokens
    merge = Merge(tokens // 2)

    def made(*interventions):
        found = probe.generate(image, "fox", interventions=interventions, **settings)
        return pixels(found)

    both = made(Weigh("reference", 2.0, mode="bias"), merge)
    np.testing.assert_array_equal(both, made(merge, Weigh("reference", 2.0, mode="bias")))
    assert np.abs(both - made(merge)).max() > 1
    assert np.abs(both - made(Weigh("reference", 2.0, mode="bias"))).max() > 1


@pytest.mark.parametrize(("mode", "factor"), FACTORS)
def test_both_attachments_make_one_image(probe, image, mode, factor):
    weigh = [Weigh("reference", factor, heads=0, mode=mode), Keep((1, 2, 8, 9), start=1)]
    one, other = (
        probe.generate(image, "fox", interventions=weigh, attachment=each, **QUIET)
        for each in ("nnsight", "hooks")
    )
    np.testing.assert_array_equal(pixels(one), pixels(other))
    (described, _) = one.provenance["interventions"]
    assert (described["group"], described["factor"], described["mode"]) == (
        "reference",
        factor,
        mode,
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Weigh("reference", float("nan")), "factor must be a finite number, not nan"),
        (lambda: Weigh("reference", -1, mode="bias"), "factor=-1"),
        (lambda: Weigh("reference", 2, mode="times"), "'times'"),
        (lambda: Weigh("refrence", 2), "no token group 'refrence'"),
        (lambda: Weigh("reference", 2, tokens=[16]), "tokens holds 16"),
        (lambda: Weigh("reference", 2, heads=2), "heads holds 2"),
    ],
)
def test_settings_that_do_not_fit(probe, image, make, message):
    with pytest.raises(InputError, match=message):
        probe.generate(image, "fox", interventions=[make()], **QUIET)


def test_company_that_does_not_fit(probe, adapter_probe, image):
    weigh, some = Weigh("reference", 2), Weigh("reference", 2, tokens=[1])
    cached = TokenCache(interval=2, first_full=1)
    with pytest.raises(InputError, match=r"Weigh works in the blocks.*while TokenCache acts"):
        probe.generate(image, "fox", interventions=[weigh, cached], **QUIET)
    with pytest.raises(InputError, match=r"Weigh works in the blocks.*while Merge acts"):
        probe.generate(image, "fox", interventions=[some, Merge(6)], **QUIET)
    with pytest.raises(UnsupportedPipelineError, match="cannot be changed"):
        adapter_probe.generate(image, "fox", interventions=[weigh], **QUIET)
