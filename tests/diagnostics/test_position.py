"""Controls that know where subjects are: the middle, and masks of other subjects."""

from __future__ import annotations

import numpy as np
import pytest

from recast_probe.diagnostics import center_prior, overlap, position_control
from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.testing.planted_profiles import planted

SIDE = 12
GRID = (Grid(SIDE, SIDE),)


def box(row, column, height=5, width=4):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[row : row + height, column : column + width] = True
    return mask


# subjects near the middle, each a little elsewhere
MASKS = [box(2 + i % 3, 3 + i // 3) for i in range(8)]


def overlaps(score_of):
    return [
        overlap(
            planted(score_of(i).ravel(), GRID),
            mask,
            other_masks=[each for j, each in enumerate(MASKS) if j != i],
            null_draws=99,
        )
        for i, mask in enumerate(MASKS)
    ]


@pytest.mark.parametrize("grid", [Grid(4, 4), Grid(5, 9), Grid(1, 3)])
def test_the_centre_prior_is_symmetric_and_highest_in_the_middle(grid):
    prior = center_prior(grid)
    assert prior.shape == (grid.rows, grid.columns)
    for mirrored in (prior[::-1], prior[:, ::-1]):
        np.testing.assert_array_equal(mirrored, prior)
    assert prior.max() == prior[grid.rows // 2, grid.columns // 2] <= 1
    # a quarter of each side is one standard deviation
    assert prior[0, 0] == pytest.approx(
        np.exp(-8 * ((0.5 - 0.5 / grid.rows) ** 2 + (0.5 - 0.5 / grid.columns) ** 2))
    )


def test_a_map_of_the_middle_beats_shifts_and_not_position():
    found = overlaps(lambda i: center_prior(GRID[0]))
    # the toroidal shifts keep no position, and take it for a find
    assert np.mean([each.p_value <= 0.05 for each in found]) >= 0.5
    for each in found:
        assert each.center_auroc == each.auroc > 0.7
        assert each.above_center == 0
    control = position_control(found)
    assert control.verdict == "undecided"
    assert control.above_center.p_value == 1
    assert control.above_center.interval.mean == 0


def test_a_map_of_the_subject_is_above_position():
    noise = np.random.default_rng(0).random((8, SIDE, SIDE))
    found = overlaps(lambda i: MASKS[i] + noise[i])
    control = position_control(found)
    assert control.verdict == "above position"
    assert control.above_other_masks.interval.low > 0
    assert control.above_center.p_value == 2 / 2**8
    assert control.summary()["other_masks_auroc"] < control.summary()["auroc"]
    assert "above position" in repr(control)
    # two runs of each subject are flipped together
    paired = position_control([*found, *found], [*range(8), *range(8)])
    assert paired.auroc.count == 8
    assert paired.above_center.p_value == 2 / 2**8


def test_a_map_of_another_subject_is_not_above_position():
    found = overlaps(lambda i: MASKS[(i + 4) % 8] * 1.0)
    control = position_control(found)
    assert control.verdict == "not above position"
    assert control.above_center.interval.high < 0


def test_other_masks_by_hand():
    score = np.arange(16.0)
    inside = np.isin(np.arange(16), [15, 13, 3])
    others = [np.isin(np.arange(16), [15]), np.isin(np.arange(16), [0, 14]).reshape(4, 4)]
    found = overlap(planted(score), inside, other_masks=others, null_draws=0)
    assert found.other_masks_auroc.tolist() == pytest.approx([1, (0 + 13) / 28])
    assert found.above_other_masks == pytest.approx(found.auroc - (1 + 13 / 28) / 2)
    plain = overlap(planted(score), inside, null_draws=0)
    assert len(plain.other_masks_auroc) == 0
    assert np.isnan(plain.above_other_masks)
    assert "other_masks_auroc" not in plain.summary()
    assert position_control([plain, plain]).other_masks_auroc is None


def test_every_reference_image_has_a_middle_of_its_own():
    grids = (Grid(3, 3), Grid(3, 5))
    inside = np.concatenate([box(1, 1, 1, 1)[:3, :3].ravel(), box(1, 2, 1, 1)[:3, :5].ravel()])
    found = overlap(planted(np.arange(24.0), grids), inside, null_draws=0)
    assert found.center_auroc == 1


def test_what_does_not_fit_is_refused():
    inside = np.eye(4, dtype=bool)
    profile = planted(np.arange(16.0))
    with pytest.raises(InputError, match=r"other_masks\[1\]: The mask has shape \(3, 3\)"):
        overlap(profile, inside, other_masks=[inside, np.eye(3, dtype=bool)])
    with pytest.raises(InputError, match="spread must be above 0, got 0"):
        center_prior(Grid(2, 2), 0)
    with pytest.raises(InputError, match="no overlaps"):
        position_control([])
    plain, other = overlap(profile, inside), overlap(profile, inside, other_masks=[~inside])
    with pytest.raises(InputError, match="some without"):
        position_control([plain, other])
    with pytest.raises(InputError, match="as many subjects, got 1"):
        position_control([plain, plain], ["a"])
