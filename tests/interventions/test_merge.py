"""Merging edits the transformer's inputs, weighs groups by size, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recast_probe.errors import InputError
from recast_probe.interventions import Merge, Prune
from recast_probe.runs.verification import patches
from recast_probe.runs.watching import watch_attention
from recast_probe.selection.budgets import Adaptive
from recast_probe.selection.merging import match
from recast_probe.selection.rankings import random

QUIET = {"steps": 3, "progress": False}


def test_nothing_to_merge_is_the_plain_image(probe, plain, image):
    result = probe.generate(image, "fox", interventions=[Merge(16)], **QUIET)
    np.testing.assert_array_equal(np.asarray(result.image), plain(image, "fox", steps=3))


def test_attention_sees_means_at_their_places_weighted_by_size(probe, pipeline, image):
    inputs, masks, ids = [], [], []
    before = patches(pipeline.transformer)
    hooks = [
        pipeline.transformer.x_embedder.register_forward_pre_hook(
            lambda module, positional: inputs.append(positional[0].clone())
        ),
        pipeline.transformer.pos_embed.register_forward_pre_hook(
            lambda module, positional: ids.append(positional[0].clone())
        ),
    ]

    def note(call, attention, arguments):
        masks.append((call, arguments["attn_mask"], arguments["key"].shape[1]))

    probe.generate(image, "fox", **QUIET)
    full, full_ids = inputs[0], ids[0]
    inputs.clear()
    ids.clear()
    with watch_attention(pipeline.transformer, note):
        result = probe.generate(image, "fox", interventions=[Merge(6, start=1)], **QUIET)
    for hook in hooks:
        hook.remove()
    assert patches(pipeline.transformer) == before
    assert result.reference_tokens_per_step == (16, 6, 6)

    layout = probe.layout(image)
    reference = full[0, 16:]
    groups = match(reference, layout.references, 2).groups(6)
    assert int(groups.sizes.max()) > 1
    torch.testing.assert_close(inputs[0], full)
    torch.testing.assert_close(inputs[1][0, 16:], groups.mean(reference))
    rows = layout.text + 16 + groups.kept
    assert torch.equal(ids[1][layout.text + 16 :], full_ids[rows])

    weights = torch.zeros(layout.text + 16 + 6)
    weights[-6:] = groups.sizes.float().log()
    for call, mask, keys in masks:
        if call == 0:
            assert mask is None
        else:
            assert keys == layout.text + 16 + 6
            torch.testing.assert_close(mask.flatten(), weights)
    assert {call for call, *_ in masks} == {0, 1, 2}


def test_proportional_attention_counts_a_group_as_often_as_its_tokens():
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 1, 5, 8, dtype=torch.float64) for _ in range(3))
    twice = torch.tensor([0, 1, 2, 3, 4, 4, 4])
    attention = torch.nn.functional.scaled_dot_product_attention
    weights = torch.tensor([1.0, 1, 1, 1, 3], dtype=torch.float64).log()
    torch.testing.assert_close(
        attention(query, key, value, attn_mask=weights[None, None, None]),
        attention(query, key[:, :, twice], value[:, :, twice]),
    )


def test_weights_change_the_image_and_budgets_may_grow(probe, image):
    budget = Adaptive(4, 12)
    found = [
        probe.generate(image, "fox", interventions=[Merge(budget, proportional=p)], **QUIET)
        for p in (True, False)
    ]
    assert found[0].reference_tokens_per_step == (4, 6, 12)
    assert np.asarray(found[0].image).tolist() != np.asarray(found[1].image).tolist()
    assert found[0].provenance["interventions"][0]["proportional"] is True


def test_groups_weigh_the_same_in_a_transformer_that_takes_no_mask(probe, image, monkeypatch):
    masked = probe.generate(image, "fox", interventions=[Merge(6)], **QUIET)
    monkeypatch.setattr(type(probe.family), "takes_attention_mask", False)
    given, merge = [], type(probe.family).merge_reference_tokens

    def noted(family, *arguments, **settings):
        given.append(merge(family, *arguments, **settings))
        return given[-1]

    monkeypatch.setattr(type(probe.family), "merge_reference_tokens", noted)
    weighed = probe.generate(image, "fox", interventions=[Merge(6)], **QUIET)
    assert len(given) == 3
    assert not any(inputs.get("joint_attention_kwargs") for inputs in given)
    np.testing.assert_allclose(
        np.asarray(weighed.image, float), np.asarray(masked.image, float), atol=1
    )


@pytest.mark.parametrize(
    ("interventions", "message"),
    [
        ([Merge(17)], "keeps 17 reference tokens"),
        ([Merge(3, window=2)], "leave at least 4"),
        ([Merge(8, window=1)], "at least 2 tokens"),
        (
            [Merge(8), Prune(random(16, 0), 8)],
            "Merge needs the full reference in step 0.*Prune",
        ),
    ],
)
def test_what_does_not_fit_is_refused(probe, image, interventions, message):
    with pytest.raises(InputError, match=message):
        probe.generate(image, "fox", interventions=interventions, **QUIET)


def test_merged_steps_cannot_be_profiled(probe, image):
    merge = Merge(8, start=1)
    with pytest.raises(InputError, match=r"steps \[1, 2\] while Merge acts"):
        probe.generate(image, "fox", interventions=[merge], profile=True, **QUIET)
    result = probe.generate(
        image, "fox", interventions=[merge], profile=True, profile_steps=0, **QUIET
    )
    assert result.profile.score.shape[0] == 1


def test_an_attention_mask_of_the_users_own_is_not_overwritten(probe, image):
    mask = torch.zeros(1)
    with pytest.raises(InputError, match="holds an attention_mask already"):
        probe.generate(
            image,
            "fox",
            interventions=[Merge(8)],
            joint_attention_kwargs={"attention_mask": mask},
            **QUIET,
        )
