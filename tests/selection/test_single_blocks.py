"""Rankings by one block each, judged."""

from __future__ import annotations

import numpy as np
import pytest

from recast_probe import rank
from recast_probe.errors import InputError
from recast_probe.testing.planted_profiles import planted


def profile_with_the_best_token_in_place(places):
    """One block for each of the places; each looks at one token most."""
    score = np.full((1, len(places), 2, 16), 0.01)
    for block, place in enumerate(places):
        score[0, block, :, place] = 0.5
    return planted(score)


def test_best_worst_and_middle():
    profile = profile_with_the_best_token_in_place([3, 9, 15, 0, 7, 2])
    found = rank.single_blocks(profile, lambda ranking: float(ranking.order[0]))
    assert found.values == {0: 3, 1: 9, 2: 15, 3: 0, 4: 7, 5: 2}
    assert (found.best, found.middle, found.worst) == (2, 2, 3)
    assert found.rankings[4].name == "block 4"
    assert "best block 2 (15), middle block 2 (15), worst block 3 (0)" in repr(found)
    assert "<td>best, middle</td>" in found._repr_html_()
    some = rank.single_blocks(profile, lambda ranking: -ranking.order[0], blocks=[1, 3, 5])
    assert (some.best, some.middle, some.worst) == (3, 3, 1)


def test_equal_blocks_and_broken_judges():
    profile = profile_with_the_best_token_in_place([1, 2])
    found = rank.single_blocks(profile, lambda ranking: 1.0)
    assert found.best == found.worst == found.middle == 0
    with pytest.raises(InputError, match="gave block 0 the value nan"):
        rank.single_blocks(profile, lambda ranking: float("nan"))
    with pytest.raises(InputError, match="There is no block 4"):
        rank.single_blocks(profile, lambda ranking: 1.0, blocks=4)
