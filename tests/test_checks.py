"""Indices of steps, heads and tokens are checked in one place, and say what was wrong."""

from __future__ import annotations

import html
import re

import numpy as np
import pytest
import torch

from recast_probe._utils.checks import check_indices
from recast_probe._utils.markup import html_table
from recast_probe.errors import InputError


@pytest.mark.parametrize(
    ("given", "available", "chosen"),
    [
        (None, 3, [0, 1, 2]),
        (None, np.array([4, 7]), [4, 7]),
        (2, 3, [2]),
        (np.int64(2), None, [2]),
        (np.array(1), 3, [1]),
        ([2, 0, 2], 3, [0, 2]),
        (np.array([2, 0]), 3, [0, 2]),
        (torch.tensor([1]), 3, [1]),
        (range(2), 3, [0, 1]),
        ({7}, [4, 7], [7]),
    ],
)
def test_indices_are_ascending_without_repeats(given, available, chosen):
    found = check_indices("steps", given, available)
    assert found == chosen
    assert all(type(index) is int for index in found)


@pytest.mark.parametrize(
    ("given", "available", "message"),
    [
        (3, 3, "steps holds 3.* of recorded steps 0-2"),
        ([5, 4], [4, 7], "steps holds 5.* of recorded steps 4, 7"),
        (-1, 3, "not -1"),
        ([0.5], 3, r"not 0\.5"),
        (True, 3, "not True"),
        (np.array([True, False]), 2, "not True"),
        ([[0, 1]], 3, r"not \[0, 1\]"),
        ("all", 3, "not 'all'"),
        ((), 3, "steps selects nothing of recorded steps 0-2"),
        ((), None, "steps selects nothing"),
        (None, 0, "steps selects nothing"),
        (None, None, "not None"),
    ],
)
def test_what_is_no_index_is_named(given, available, message):
    with pytest.raises(InputError, match=message):
        check_indices("steps", given, available, of="recorded steps")


def test_none_at_all_may_be_a_selection():
    assert check_indices("tokens", (), 3, empty=True) == []
    assert check_indices("tokens", (), 0, empty=True) == []


def test_every_text_of_a_notebook_view_is_escaped():
    shown = html_table("<a>", [("<b>", "<c>", 1)], head=("<d>", "&"))
    assert [html.unescape(part) for part in re.findall(r">([^<]+)<", shown)] == [
        *("<a>", "<d>", "&", "<b>", "<c>", "1")
    ]
