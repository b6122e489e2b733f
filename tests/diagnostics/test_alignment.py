"""Shift and zoom are found again where they were planted, with intervals that hold them."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_probe.diagnostics import Alignment, Correspondence, alignment
from recast_probe.errors import InputError
from recast_probe.layout import Grid

SIDE = 16
GRID = Grid(SIDE, SIDE)
EXACT = 1e-6


def planted(zoom, down, right, wrong=0.0, noise=0.0, seed=0, layers=1):
    """Tokens that look where an output that is zoomed and shifted so would look."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((SIDE, SIDE)).reshape(2, -1)
    own = (np.stack([rows, columns], -1) + 0.5) / SIDE
    seen = (own - 0.5 - [down, right]) / zoom + 0.5 + noise * rng.normal(size=own.shape)
    astray = rng.random(len(own)) < wrong
    seen[astray] = rng.random((int(astray.sum()), 2))

    def labelled(values):
        return xr.DataArray(np.asarray(values), dims=("query", "axis")[: np.ndim(values)])

    one = np.ones(len(own))
    return Correspondence(
        place=labelled(own),
        best=labelled(np.arange(len(own))),
        best_place=labelled(seen),
        expected_place=labelled(seen),
        peak=labelled(0.5 * one),
        entropy=labelled(one),
        mass=labelled(one),
        generation=Grid(SIDE, SIDE, layers=layers),
        reference=GRID,
        selection="planted",
    )


@settings(max_examples=25, deadline=None)
@given(st.floats(0.6, 1.6), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_what_was_planted_is_found(zoom, down, right):
    found = alignment(planted(zoom, down, right))
    assert found.zoom.mean == pytest.approx(zoom, abs=EXACT)
    assert found.shift_y.mean == pytest.approx(down, abs=EXACT)
    assert found.shift_x.mean == pytest.approx(right, abs=EXACT)
    assert (found.following, found.tokens) == (1.0, SIDE**2)


def test_tokens_that_look_elsewhere_hardly_move_it():
    found = alignment(planted(1.2, 0.05, -0.1, wrong=0.2, noise=0.01))
    # least squares would give about 1.2 / (1 - 0.2)
    assert found.zoom.mean == pytest.approx(1.2, abs=0.01)
    assert found.shift_x.mean == pytest.approx(-0.1, abs=0.01)
    assert 0.75 < found.following < 0.88


def test_intervals_hold_the_planted_values_as_often_as_they_say():
    held = np.zeros(3)
    for seed in range(25):
        found = alignment(planted(1.1, 0.02, 0.0, noise=0.05, seed=seed))
        for place, (name, truth) in enumerate({"zoom": 1.1, "shift_y": 0.02, "shift_x": 0}.items()):
            interval = getattr(found, name)
            held[place] += interval.low <= truth <= interval.high
    # the chance of fewer than 20 of 25 is below 1 in 100
    assert (held >= 20).all(), held


def test_over_several_the_interval_is_of_these():
    zooms = (1.0, 1.1, 1.2, 1.15, 1.05, 1.1)
    found = alignment([planted(zoom, 0.1, 0.0) for zoom in zooms])
    assert found.zoom.mean == pytest.approx(np.mean(zooms), abs=EXACT)
    assert (found.zoom.count, found.tokens) == (6, 6 * SIDE**2)
    assert 1.0 < found.zoom.low < found.zoom.high < 1.2
    assert found.selection == "planted and 5 more"


def test_nothing_to_fit_is_seen():
    found = alignment(planted(1.0, 0.0, 0.0, wrong=1.0))
    assert found.following < 0.1


def test_what_it_cannot_be_asked():
    with pytest.raises(InputError, match="`correspondence`"):
        alignment([])
    with pytest.raises(InputError, match="several layers"):
        alignment(planted(1, 0, 0, layers=2))
    few = planted(1, 0, 0)
    chosen = {
        n: getattr(few, n).isel(query=slice(3)) for n in ("place", "best_place", "best", "peak")
    }
    with pytest.raises(InputError, match="3 tokens are too few"):
        alignment(Correspondence(**{**vars(few), **chosen}))


def test_the_numbers_are_those_of_the_result():
    found = alignment(planted(1.25, 0.0, 0.1))
    numbers = found.summary()
    assert set(numbers) == set(Alignment.words)
    assert numbers["zoom"] == pytest.approx(1.25, abs=EXACT)
    assert "zoom 1.250" in repr(found)
