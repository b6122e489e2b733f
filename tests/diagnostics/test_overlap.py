"""Overlap with a mask: planted values, nulls that find nothing, masks that do not fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_probe.diagnostics import mask_to_grid, overlap
from recast_probe.diagnostics.inference import toroidal_shifts
from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.testing.planted_profiles import planted

BOX = np.zeros((4, 4), bool)
BOX[1:3, 1:3] = True


def test_attention_on_the_mask_alone():
    found = overlap(planted(BOX.ravel() * 0.25), BOX)
    assert found.mass_share == 1
    assert found.base_rate == 0.25
    assert found.enrichment == 4
    assert (found.k, found.precision_at_k, found.iou_at_k) == (4, 1, 1)
    assert (found.auroc, found.average_precision) == (1, 1)
    # none of the 15 other places of the box is as good
    assert found.p_value == 1 / 16
    assert found.null["auroc"].count == 15
    assert found.null["auroc"].high < 1
    assert found.null["enrichment"].mean == pytest.approx((16 / 4 - 1) / 15 * 4)


def test_measures_by_hand():
    score = np.arange(16.0)
    inside = np.isin(np.arange(16), [15, 13, 3])
    found = overlap(planted(score), inside, fraction=3 / 16, null_draws=0)
    assert found.mass_share == pytest.approx(31 / 120)
    assert found.enrichment == pytest.approx(31 / 120 * 16 / 3)
    assert found.precision_at_k == pytest.approx(2 / 3)
    assert found.iou_at_k == pytest.approx(2 / 4)
    assert found.auroc == pytest.approx((13 + 12 + 3) / 39)
    assert found.null == {}
    assert math.isnan(found.p_value)


def test_every_block_has_its_own_detector():
    scores = np.stack([BOX.ravel() * 2.0, ~BOX.ravel() * 1.0])[:, None]
    found = overlap(planted(scores), BOX, null_draws=0)
    assert found.block_auroc.values.tolist() == [1, 0]
    assert found.block_auroc.dims == ("block",)


def test_random_scores_find_nothing():
    """AUROC 0.5 and enrichment 1 within the null's intervals, in 95 of 100 trials or so."""
    rng = np.random.default_rng(0)
    grid = (Grid(12, 12),)
    mask = np.zeros((12, 12), bool)
    mask[3:8, 2:9] = True
    within = {"auroc": 0, "enrichment": 0}
    p_values, aurocs = [], []
    for trial in range(100):
        found = overlap(planted(rng.gamma(2, size=144), grid), mask, null_draws=143, seed=trial)
        for name in within:
            null = found.null[name]
            within[name] += null.low <= getattr(found, name) <= null.high
        assert found.null["auroc"].low < 0.5 < found.null["auroc"].high
        assert found.null["enrichment"].low < 1 < found.null["enrichment"].high
        p_values.append(found.p_value)
        aurocs.append(found.auroc)
    assert min(within.values()) >= 88
    assert np.mean(aurocs) == pytest.approx(0.5, abs=0.02)
    # p-values of a true null are uniform
    assert np.mean(np.array(p_values) <= 0.05) < 0.12
    assert 0.4 < np.mean(p_values) < 0.6


def test_shuffled_masks_destroy_a_planted_overlap():
    rng = np.random.default_rng(1)
    score = BOX.ravel() + 0.01 * rng.random(16)
    shuffled = [rng.permutation(BOX.ravel()) for _ in range(300)]
    found = [overlap(planted(score), mask, null_draws=0) for mask in shuffled]
    assert np.mean([each.auroc for each in found]) == pytest.approx(0.5, abs=0.05)
    assert np.mean([each.enrichment for each in found]) == pytest.approx(1, abs=0.1)


def test_several_references_are_shifted_each_on_its_own_grid():
    grids = (Grid(4, 4), Grid(2, 3))
    mask = np.concatenate([BOX.ravel(), np.array([1, 0, 0, 0, 0, 0], bool)])
    found = overlap(planted(mask * 1.0, grids), mask, null_draws=400, seed=3)
    assert found.auroc == 1
    # no shift is drawn twice, so all 16 x 6 but the unmoved one are there
    assert found.null["auroc"].count == 95
    assert found.null["auroc"].mean == pytest.approx(0.5, abs=0.05)
    assert found.p_value < 0.02


def test_the_same_seed_gives_the_same_null():
    profile = planted(np.random.default_rng(0).random(16))
    first, again, other = (overlap(profile, BOX, null_draws=7, seed=s) for s in (1, 1, 2))
    assert first.null == again.null
    assert first.null != other.null


def test_constant_scores_have_no_order():
    with pytest.warns(UserWarning, match="All scores are equal: AUROC"):
        found = overlap(planted(np.ones(16)), BOX)
    assert found.mass_share == found.base_rate
    assert found.enrichment == 1
    for name in ("auroc", "average_precision", "precision_at_k", "iou_at_k", "p_value"):
        assert math.isnan(getattr(found, name)), name


def test_a_mask_that_no_shift_changes():
    grids = (Grid(1, 2), Grid(1, 2))
    with pytest.warns(UserWarning, match="No shift changes this mask"):
        found = overlap(planted(np.array([3.0, 2, 1, 1]), grids), np.array([1, 1, 0, 0], bool))
    assert found.auroc == 1
    assert math.isnan(found.p_value)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((4, 4), bool), "no token inside"),
        (np.ones((4, 4), bool), "every token inside"),
        (np.zeros((2, 8), bool), "has shape"),
        (np.full((4, 4), 0.5), "true or false"),
        (np.full((4, 4), math.nan), "true or false"),
    ],
)
def test_masks_that_cannot_be_used(mask, message):
    with pytest.raises(InputError, match=message):
        overlap(planted(np.arange(16.0)), mask)
    with pytest.raises(InputError, match="at least 0, not -1"):
        overlap(planted(np.arange(16.0)), BOX, null_draws=-1)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 2**31))
def test_masks_in_whole_tokens_come_back(rows, columns, pixels, seed):
    wanted = np.random.default_rng(seed).random((rows, columns)) < 0.5
    big = np.kron(wanted, np.ones((pixels, pixels + 1)))
    for scale in (1, 255):
        found = mask_to_grid(big * scale, Grid(rows, columns))
        assert found.tolist() == wanted.tolist()


def test_a_token_counts_when_more_than_half_of_it_is_covered():
    mask = np.zeros((6, 6), bool)
    mask[:, :3] = True  # of 4 columns of 1.5 pixels: all, all, none; the second ends at pixel 3
    assert mask_to_grid(mask, Grid(1, 4)).tolist() == [[True, True, False, False]]
    # of 3 columns of 2 pixels the second is covered by exactly one half
    assert mask_to_grid(mask, Grid(1, 3)).tolist() == [[True, False, False]]
    assert mask_to_grid(mask, Grid(1, 3), threshold=0.49).tolist() == [[True, True, False]]
    # more tokens than pixels
    assert mask_to_grid(np.array([[1, 0]]), Grid(2, 4)).tolist() == [[True, True, False, False]] * 2


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((2, 2, 3)), "height, width"),
        (np.zeros((0, 2)), "height, width"),
        (np.array([[math.nan, 1]]), "not finite"),
        (np.array([[-1.0, 1]]), "negative"),
        (np.array([[0, 256]]), "0 \\(50%\\), 256 \\(50%\\)"),
    ],
)
def test_images_that_are_no_masks(mask, message):
    with pytest.raises(InputError, match=message):
        mask_to_grid(mask, Grid(2, 2))


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 40), st.integers(0, 2**31))
def test_shifts_keep_size_and_shape_and_leave_out_the_mask_itself(rows, columns, draws, seed):
    mask = np.zeros((rows, columns), bool)
    mask[0, 0] = True
    moved = toroidal_shifts(mask, draws, seed)
    assert moved.shape == (min(draws, mask.size - 1), rows, columns)
    assert (moved.sum((1, 2)) == 1).all()
    places = {int(np.flatnonzero(each)[0]) for each in moved}
    assert len(places) == len(moved)
    assert 0 not in places
