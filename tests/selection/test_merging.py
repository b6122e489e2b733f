"""Bipartite soft matching: against ToMe's own code, and its arithmetic by hand."""

from __future__ import annotations

import pytest
import tomesd.merge
import torch
from hypothesis import given
from hypothesis import strategies as st

from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.selection.merging import match, window_for


@given(
    rows=st.integers(2, 9),
    columns=st.integers(2, 9),
    window=st.integers(2, 4),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**31),
)
def test_the_same_tokens_are_merged_as_by_tome(rows, columns, window, share, seed):
    if window > min(rows, columns):
        window = 2
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(rows * columns, 5, generator=generator, dtype=torch.float64)
    matching = match(features, [Grid(rows, columns)], window)
    remove = round(share * len(matching.source))
    groups = matching.groups(rows * columns - remove)
    merge, _ = tomesd.merge.bipartite_soft_matching_random2d(
        features[None], columns, rows, window, window, remove, no_rand=True
    )
    values = torch.randn(rows * columns, 3, generator=generator)
    theirs = merge(values[None])[0]
    ours = groups.mean(values)
    # they put unmerged sources first; the same rows in another order
    assert ours.shape == theirs.shape
    distance = torch.cdist(ours.double(), theirs.double()).min(1)
    assert distance.values.max() < 1e-5
    assert len(set(distance.indices.tolist())) == len(ours)


def test_equal_tokens_are_merged_first_and_keep_a_destination_position():
    features = torch.eye(16)
    features[5] = features[0]  # the source at row 1, column 1 equals the destination at 0, 0
    matching = match(features, [Grid(4, 4)], 2)
    groups = matching.groups(15)
    assert groups.kept.tolist() == [i for i in range(16) if i != 5]
    assert groups.sizes.tolist() == [2] + [1] * 14
    values = torch.arange(16.0)[:, None]
    assert groups.mean(values)[:2, 0].tolist() == [2.5, 1.0]


def test_nothing_to_merge_changes_nothing():
    values = torch.randn(2, 16, 3).to(torch.bfloat16)
    groups = match(torch.randn(16, 4), [Grid(4, 4)], 2).groups(16)
    assert torch.equal(groups.mean(values), values)
    assert groups.sizes.tolist() == [1] * 16


@given(budget=st.integers(2, 60), seed=st.integers(0, 1000))
def test_every_budget_is_met_and_every_token_counted(budget, seed):
    grids = [Grid(6, 7), Grid(3, 6)]
    features = torch.randn(60, 4, generator=torch.Generator().manual_seed(seed))
    groups = match(features, grids, window_for(budget, grids)).groups(budget)
    assert len(groups.kept) == budget
    assert int(groups.sizes.sum()) == 60
    assert torch.equal(groups.group[groups.kept], torch.arange(budget))
    total = (groups.mean(features) * groups.sizes[:, None]).sum(0)
    torch.testing.assert_close(total, features.sum(0), atol=1e-4, rtol=1e-4)


def test_windows_grow_as_budgets_shrink():
    assert [window_for(budget, [Grid(16, 16)]) for budget in (256, 64, 63, 16, 4, 1)] == [
        *(2, 2, 3, 4, 6, 9)
    ]


def test_what_cannot_be_merged_says_so():
    matching = match(torch.randn(16, 4), [Grid(4, 4)], 2)
    with pytest.raises(InputError, match="into 3; windows of this size allow 4 to 16"):
        matching.groups(3)
    with pytest.raises(InputError, match="2 reference images cannot"):
        window_for(1, [Grid(4, 4), Grid(4, 4)])
    with pytest.raises(InputError, match="do not fit"):
        match(torch.randn(15, 4), [Grid(4, 4)], 2)
    with pytest.raises(InputError, match="at least 2"):
        match(torch.randn(16, 4), [Grid(4, 4)], 1)
