"""Token positions by group."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout

grids = st.builds(Grid, st.integers(1, 6), st.integers(1, 6))
references = st.lists(
    grids | st.builds(Grid, st.just(1), st.integers(1, 9), st.just(False)), max_size=3
).map(tuple)
layouts = st.builds(TokenLayout, st.integers(0, 9), grids, references)


@given(layouts)
def test_groups_tile_the_sequence(layout):
    positions = np.arange(layout.total)
    parts = [positions[layout.span(group)] for group in layout.groups]
    np.testing.assert_array_equal(np.concatenate(parts), positions)
    images = [positions[layout.span(f"reference_{i}")] for i in range(len(layout.references))]
    np.testing.assert_array_equal(np.concatenate([parts[2][:0], *images]), parts[2])


@given(layouts)
def test_coordinates_name_every_reference_token_once(layout):
    image, row, column = layout.reference_coordinates()
    assert len(set(zip(image, row, column, strict=True))) == layout.reference_tokens
    for i, r, c in zip(image, row, column, strict=True):
        assert r < layout.references[i].rows
        assert c < layout.references[i].columns


@given(layouts)
def test_dictionary_round_trip(layout):
    assert TokenLayout.from_dict(layout.to_dict()) == layout


def test_unknown_groups_and_empty_grids_are_refused():
    layout = TokenLayout(4, Grid(2, 2), (Grid(2, 3),))
    with pytest.raises(InputError, match=r"'padding'.*text, generation, reference, reference_0"):
        layout.span("padding")
    with pytest.raises(InputError, match="0 x 3"):
        Grid(0, 3)


def test_a_generation_of_several_layers():
    layout = TokenLayout(4, Grid(2, 3, layers=4), (Grid(2, 3),))
    assert layout.span("reference") == slice(28, 34)
    assert TokenLayout.from_dict(layout.to_dict()) == layout
    assert layout.to_dict()["generation"] == [2, 3, True, 4]
    assert str(layout.generation) == "4 layers of 2 x 3"
    layer, row, column = layout.generation.coordinates()
    for token in range(24):
        assert token == (layer[token] * 2 + row[token]) * 3 + column[token]
    assert column.max() == 2
    with pytest.raises(InputError, match="0 layers"):
        Grid(2, 3, layers=0)


def test_a_reference_of_several_pictures_is_one_grid_for_each():
    frames = (Grid(2, 3),) * 4
    image, row, _ = TokenLayout(0, Grid(2, 3, layers=4), frames).reference_coordinates()
    np.testing.assert_array_equal(image, np.repeat(range(4), 6))
    assert row.max() == 1
    with pytest.raises(InputError, match="4 layers of 2 x 3"):
        TokenLayout(0, Grid(2, 3), (Grid(2, 3, layers=4),))


def test_tokens_without_places():
    row = Grid(1, 4, placed=False)
    assert str(row) == "4 tokens without places"
    assert row != Grid(1, 4)
    assert TokenLayout(4, Grid(2, 2), (Grid(2, 3),)).placed
    assert not TokenLayout(4, Grid(2, 2), (Grid(2, 3), row)).placed
    assert TokenLayout(4, Grid(2, 2), (Grid(2, 3),)).to_dict()["references"] == [[2, 3]]
