"""Reused keys and values: exact where nothing is old, apart for every image and branch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn

from recast_probe.attention import attend, dense_attention
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.interventions import (
    Intervention,
    Keep,
    Knockout,
    Merge,
    Prune,
    Recast,
    ReuseReference,
    Similarity,
    TokenCache,
)
from recast_probe.layout import Grid, TokenLayout
from recast_probe.runs.verification import patches
from recast_probe.selection.budgets import Adaptive
from recast_probe.selection.rankings import random
from recast_probe.testing import tiny

QUIET = {"steps": 5, "progress": False}
GUIDED = {"true_cfg_scale": 2.0, "negative_prompt": "blurry"}
ALL = tiny.BLOCKS * 2 * 16 * tiny.HEADS * tiny.HEAD_DIMENSION * 4


def run(probe, image, *interventions, prompt="fox", **settings):
    return probe.generate(image, prompt, interventions=interventions, **{**QUIET, **settings})


def pixels(result) -> np.ndarray:
    return np.asarray(result.image).astype(int)


class Watch(Intervention):
    """Keeps what attention was given and what it gave, by step, branch and block."""

    def __init__(self) -> None:
        self.inputs: dict = {}
        self.outputs: dict = {}
        self.layouts: dict = {}

    def begin_call(self, step, branch, layout):
        self.now = (step, branch)
        self.layouts[self.now] = layout

    def changes_attention(self, block):
        return True

    def attention_inputs(self, block, inputs):
        self.inputs[(*self.now, block)] = inputs
        return inputs

    def attention_output(self, block, output):
        self.outputs[(*self.now, block)] = output
        return output


def test_stored_anew_in_every_step_it_is_the_plain_image(probe, plain, image):
    wanted = plain(image, "fox", steps=5)
    for refresh in (1, [1, 2, 3, 4]):
        result = run(probe, image, ReuseReference(refresh=refresh))
        np.testing.assert_array_equal(np.asarray(result.image), wanted)
    # a step that stores is full, whatever is dropped beside it
    result = run(probe, image, Prune(random(16, 0), 3), ReuseReference(refresh=1))
    np.testing.assert_array_equal(np.asarray(result.image), wanted)
    assert result.reference_tokens_per_step == (16,) * 5


def test_keys_of_the_same_step_reproduce_full_attention():
    layout = TokenLayout(5, Grid(4, 4), (Grid(3, 5),))
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, layout.total, 2, 16, generator=generator) for _ in range(3))
    rows = layout.total - layout.reference_tokens
    pairs = [("generation", "reference"), ("text", "reference")]
    full = attend(query, key, value, layout, pairs=pairs)
    fewer = attend(query[:, :rows], key, value, layout, pairs=pairs)
    torch.testing.assert_close(fewer.output, full.output[:, :rows], atol=1e-6, rtol=0)
    for pair in pairs:
        torch.testing.assert_close(fewer.pairs[pair].score, full.pairs[pair].score)
    dense = dense_attention(query, key, value, layout, pairs=pairs)
    torch.testing.assert_close(fewer.mass[:, :, :2].double(), dense.mass[:, :, :2])
    assert fewer.mass[:, :, 2].isnan().all()
    with pytest.raises(InputError, match="reference tokens cannot be read where they are not"):
        attend(query[:, :rows], key, value, layout, pairs=[("reference", "reference")])
    with pytest.raises(InputError, match="There are 20 queries"):
        attend(query[:, : rows - 1], key, value, layout)


@pytest.mark.parametrize("arguments", [{}, GUIDED])
def test_a_reused_block_against_float64(probe, image, arguments):
    """Own keys of text and generation tokens, then the chosen ones of the step that stored."""
    watch, ranking = Watch(), random(16, 1)
    result = run(
        probe, image, Prune(ranking, Adaptive(3, 9), start=1), ReuseReference(), watch, **arguments
    )
    rows, branches = tiny.TEXT_TOKENS + 16, ("conditional", "unconditional")
    for step in (1, 4):
        kept = ranking.top(result.reference_tokens_per_step[step])
        for branch in branches if arguments else branches[:1]:
            for block in range(tiny.BLOCKS):
                stored, given = (watch.inputs[each, branch, block] for each in (0, step))
                assert given.query.shape[1] == rows
                assert watch.layouts[step, branch].total == rows
                for own, first in ((given.key, stored.key), (given.value, stored.value)):
                    assert torch.equal(own[:, rows:], first[:, rows:][:, kept])
                query, key, value = (
                    each.double().transpose(1, 2) for each in (given.query, given.key, given.value)
                )
                scores = query @ key.transpose(-1, -2) * tiny.HEAD_DIMENSION**-0.5
                dense = (scores.softmax(-1) @ value).transpose(1, 2)
                found = watch.outputs[step, branch, block]
                torch.testing.assert_close(found.double(), dense, atol=2e-6, rtol=0)
    if arguments:
        keys = [watch.inputs[1, branch, 2].key[:, rows:] for branch in branches]
        assert not torch.equal(*keys)


def test_images_and_branches_share_nothing(probe, image, pipeline):
    before = patches(pipeline.transformer)
    reuse = ReuseReference(refresh=3)
    other = tiny.tiny_image(seed=5)
    alone = run(probe, other, reuse, **GUIDED)
    run(probe, image, reuse)
    again = run(probe, other, reuse, **GUIDED)
    np.testing.assert_array_equal(pixels(again), pixels(alone))
    assert patches(pipeline.transformer) == before
    facts = again.provenance["interventions"][0]["run"]
    assert facts == {
        "stored_steps": [0, 3],
        "reused_steps": [1, 2, 4],
        "stored_bytes": 2 * ALL,
    }


def test_where_they_are_kept_changes_nothing(probe, image):
    here, there = (run(probe, image, ReuseReference(device=d)) for d in (None, "cpu"))
    np.testing.assert_array_equal(pixels(here), pixels(there))
    assert np.abs(pixels(here) - pixels(run(probe, image))).max() > 0


def test_a_batch_of_prompts(probe, image):
    batch = run(probe, image, ReuseReference(), prompt=["fox", "a red car"])
    single = run(probe, image, ReuseReference(), prompt="a red car")
    difference = np.asarray(batch.images[1]).astype(int) - pixels(single)
    assert np.abs(difference).max() <= 1


def test_a_run_ranks_its_tokens_and_reuses_them(probe, image):
    result = run(probe, image, Recast(Adaptive(3, 9)), ReuseReference(refresh=[3]))
    assert result.reference_tokens_per_step == (16, 3, 5, 16, 9)
    pruned = run(probe, image, Recast(Adaptive(3, 9)))
    assert result.ranking.order.tolist() == pruned.ranking.order.tolist()
    assert np.abs(pixels(result) - pixels(pruned)).max() > 0
    # ranking again reads a step whose reference is reused
    again = run(probe, image, Recast(4, every=2), ReuseReference())
    assert again.reference_tokens_per_step == (16, 4, 16, 4, 4)


def test_statistics_of_reused_steps_are_those_of_the_attention_that_ran(probe, image):
    watch, ranking = Watch(), random(16, 1)
    settings = {"profile": True, "profile_steps": [2]}
    result = run(probe, image, Prune(ranking, 5, start=1), ReuseReference(), watch, **settings)
    given = watch.inputs[2, "conditional", 3]
    layout = TokenLayout(tiny.TEXT_TOKENS, Grid(4, 4), (Grid(1, 5),))
    padded = torch.zeros_like(given.key)
    padded[:, : given.query.shape[1]] = given.query
    dense = dense_attention(padded, given.key, given.value, layout)
    score = result.profile.dataset["score"].isel(branch=0, step=0, block=3).values
    wanted = dense.pairs["generation", "reference"].score[0].numpy()
    np.testing.assert_allclose(score[:, ranking.top(5)], wanted, atol=1e-6)
    assert np.isnan(score).sum() == tiny.HEADS * 11
    own = dispatch_attention_fn(given.query, given.key, given.value)
    assert torch.equal(own, watch.outputs[2, "conditional", 3])


def test_edges_from_reused_tokens_are_cut_like_any_others(probe, image):
    """Softmax over the keys that are left, in float64; in either order, with either attachment."""
    cut, ranking = [2, 7, 8], random(16, 1)
    knockout = Knockout("reference", "generation", tokens=cut, steps=[2, 3])
    pruned, watch = Prune(ranking, 9, start=1), Watch()
    first = run(probe, image, pruned, ReuseReference(), knockout, watch)
    for other in (
        run(probe, image, knockout, pruned, ReuseReference()),
        run(probe, image, pruned, ReuseReference(), knockout, attachment="hooks"),
    ):
        np.testing.assert_array_equal(pixels(first), pixels(other))
    rows, kept = tiny.TEXT_TOKENS + 16, ranking.top(9)
    hidden = rows + np.flatnonzero(np.isin(kept, cut))
    assert 0 < len(hidden) < 9
    for step, acts in ((1, False), (2, True), (3, True), (4, False)):
        for block in range(tiny.BLOCKS):
            given = watch.inputs[step, "conditional", block]
            query, key, value = (
                each.double().transpose(1, 2) for each in (given.query, given.key, given.value)
            )
            scores = query @ key.transpose(-1, -2) * tiny.HEAD_DIMENSION**-0.5
            if acts:
                scores[:, :, tiny.TEXT_TOKENS : rows, hidden] = -torch.inf
            dense = (scores.softmax(-1) @ value).transpose(1, 2)
            found = watch.outputs[step, "conditional", block]
            torch.testing.assert_close(found.double(), dense, atol=2e-6, rtol=0)


def test_without_any_edge_reused_tokens_are_as_if_never_there(probe, image):
    edges = [Knockout("reference", to, steps=range(1, 5)) for to in ("generation", "text")]
    cut = run(probe, image, ReuseReference(), *edges)
    gone = run(probe, image, Keep((), start=1))
    assert np.abs(pixels(cut) - pixels(gone)).max() <= 1


def test_what_cannot_be(probe, image, adapter_probe):
    with pytest.raises(InputError, match="start must be"):
        ReuseReference(start=0)
    with pytest.raises(InputError, match="stores keys and values in step 7, but the steps"):
        run(probe, image, ReuseReference(refresh=[2, 7]))
    with pytest.raises(InputError, match="no reference tokens to reuse"):
        run(probe, None, ReuseReference())
    with pytest.raises(InputError, match=r"reference tokens cannot be recorded in steps \[1, 2"):
        run(probe, image, ReuseReference(), profile=True, queries="reference")
    with pytest.raises(InputError, match="Similarity needs queries or hidden states of the ref"):
        run(probe, image, ReuseReference(), Similarity(step=2))
    with pytest.raises(InputError, match="Knockout needs queries or hidden states of the refer"):
        run(probe, image, ReuseReference(), Knockout("text", "reference_0"))
    for other in (Merge(4), TokenCache()):
        with pytest.raises(InputError, match="needs queries or hidden states of the reference"):
            run(probe, image, ReuseReference(), other)
    with pytest.raises(UnsupportedPipelineError, match="cannot be changed, reused"):
        run(adapter_probe, image, ReuseReference())
