"""Scenes: what is known about a sample is true of its pixels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_probe.pocket import backgrounds, samples
from recast_probe.pocket.scenes import (
    COLUMNS,
    KIND_WEIGHTS,
    KINDS,
    ROWS,
    SIZES,
    Placement,
    View,
    sample_task,
)
from recast_probe.pocket.shipped import drawn
from recast_probe.pocket.subjects import HELD_OUT, held_out, held_out_keys


@given(st.sampled_from(sorted(SIZES)), st.sampled_from(ROWS), st.sampled_from(COLUMNS))
@settings(deadline=None)
def test_named_placements_lie_inside_on_the_token_grid(size, row, column):
    placement = Placement.named(size, row, column)
    for edge in (placement.left, placement.top):
        assert edge % 8 == 0
        assert 0 <= edge <= 128 - placement.side


@pytest.mark.parametrize("name", backgrounds.names())
def test_every_named_background_draws_and_depends_only_on_its_seed(name):
    first = backgrounds.draw(name, np.random.default_rng(3))
    again = backgrounds.draw(name, np.random.default_rng(3))
    assert first.shape == (128, 128, 3)
    assert first.min() >= 0
    assert first.max() <= 256
    np.testing.assert_array_equal(first, again)


def test_the_mask_is_where_the_subject_changes_the_picture():
    subject = held_out()[0]
    placement = Placement.named("large", "top", "left")
    bare = backgrounds.draw("a blue wall", np.random.default_rng(5))
    pixels, mask = View(subject, placement, "a blue wall", 5).render()
    changed = np.abs(pixels.astype(float) - np.floor(bare)).max(-1) > 2
    assert not changed[mask == 0].any()
    assert changed[mask > 0.9].mean() > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_keep_what_their_kind_promises(kind):
    for seed in range(20):
        task = sample_task(held_out(), np.random.default_rng(seed), kind=kind)
        same_place = task.reference.place == task.target.place
        if kind == "background":
            assert task.reference.placement == task.target.placement
            assert not same_place
            assert task.target.place in task.caption
            np.testing.assert_array_equal(task.reference.render()[1], task.target.render()[1])
        if kind == "recolour":
            assert same_place
            assert task.target.tint in task.caption
        if kind == "style":
            assert task.reference.style == task.target.style is not None
            assert task.target.subject.name in task.caption
        if kind != "style":
            assert task.reference.subject is task.target.subject


def test_the_held_out_split_is_fixed_and_does_not_depend_on_order():
    keys = [subject.key for subject in held_out()]
    assert len(set(keys)) == HELD_OUT
    padded = keys + [f"fff{i}" for i in range(700)]
    assert held_out_keys(padded) == held_out_keys(padded[::-1])
    assert held_out_keys(keys) == keys


def test_shipped_samples_have_masks_of_their_pictures():
    shipped = samples()
    assert len(shipped) == 24
    for sample in shipped:
        assert sample.image.size == (128, 128)
        assert sample.mask.shape == (128, 128)
        assert 0.02 < sample.mask.mean() < 0.7
        assert len(sample.prompts) == len(sample.target_masks) == len(sample.kinds) == 4
        rows, columns = np.nonzero(sample.mask)
        box = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
        # drawings touch at least two opposite sides of their square, which is in the middle
        assert 128 in (box[0] + box[1], box[2] + box[3])


def test_shipped_samples_are_what_their_rule_draws():
    """Pictures, prompts and every target's mask, to the pixel; two prompts of each kind."""
    for sample, (subject, view, targets) in zip(samples(), drawn(), strict=True):
        pixels, alpha = view.render()
        assert sample.subject == subject == view.subject.name
        assert view.subject.key in {each.key for each in held_out()}
        np.testing.assert_array_equal(np.asarray(sample.image), pixels)
        np.testing.assert_array_equal(sample.mask, alpha > 0.5)
        assert sorted(sample.kinds) == ["in place", "in place", "moved", "moved"]
        for index, (prompt, target) in enumerate(targets):
            assert sample.prompts[index] == prompt
            np.testing.assert_array_equal(sample.target_masks[index], target.render()[1] > 0.5)
            stays = target.placement == view.placement
            assert stays == (sample.kinds[index] == "in place")
            assert stays or target.placement.side == view.placement.side
            assert target.place in prompt
            assert target.place != view.place


def test_most_references_are_in_the_middle_and_most_moved_subjects_keep_their_size():
    rng = np.random.default_rng(0)
    tasks = [sample_task(held_out(), rng) for _ in range(4000)]
    found = Counter(task.kind for task in tasks)
    assert [found[kind] / 4000 for kind in KINDS] == pytest.approx(KIND_WEIGHTS, abs=0.03)
    placements = [task.reference.placement for task in tasks]
    middle = [Placement.named(size, "middle", "center") for size in ("medium", "large")]
    # 85 %, and one in nine of the others
    assert np.mean([p in middle for p in placements]) == pytest.approx(0.86, abs=0.02)
    off_grid = np.mean([p.left % 8 > 0 or p.top % 8 > 0 for p in placements])
    assert 0.002 < off_grid < 0.02
    moved = [task for task in tasks if task.kind == "new scene"]
    same = [task.reference.placement.side == task.target.placement.side for task in moved]
    # 90 %, and a third of those that are drawn anew
    assert np.mean(same) == pytest.approx(0.93, abs=0.03)
    assert all(task.reference.placement != task.target.placement for task in moved)
