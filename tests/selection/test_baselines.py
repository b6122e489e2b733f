"""Orders that ask no model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_probe import rank
from recast_probe.errors import InputError
from recast_probe.interventions import Prune
from recast_probe.layout import Grid


def test_the_centre_comes_first_then_the_corners():
    order = rank.uniform_grid(Grid(5, 5)).order
    assert order[0] == 12
    assert set(order[1:5]) == {0, 4, 20, 24}


@given(rows=st.integers(1, 8), columns=st.integers(1, 8), share=st.floats(0.05, 1))
def test_no_place_is_far_from_a_chosen_one(rows, columns, share):
    """Farthest-first covers within twice the best possible radius."""
    count = max(1, round(share * rows * columns))
    ranking = rank.uniform_grid(Grid(rows, columns))
    place = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)
    chosen = place[ranking.order[:count]]
    distance = np.linalg.norm(place[:, None] - chosen[None], axis=-1)
    apart = np.linalg.norm(chosen[:, None] - chosen[None], axis=-1)
    apart[np.diag_indices(count)] = np.inf
    # what is not chosen is never farther away than the chosen are from one another
    assert distance.min(1).max() <= apart.min() + 1e-9


def test_several_references_share_every_budget():
    ranking = rank.uniform_grid([Grid(4, 4), Grid(2, 4)])
    for budget in (3, 6, 12):
        assert np.sum(ranking.order[:budget] < 16) == budget * 2 // 3
    with pytest.raises(InputError, match="at least one"):
        rank.uniform_grid([])
    with pytest.raises(InputError, match="stand for no places"):
        rank.uniform_grid(Grid(1, 4, placed=False))


def test_the_oracle_takes_the_subject_first():
    mask = np.zeros((4, 4), bool)
    mask[1:3, 2] = True
    by = rank.Ranking(np.arange(16)[::-1], "backwards")
    assert rank.mask_oracle(mask, by).order.tolist() == [
        *(10, 6),
        *(i for i in range(15, -1, -1) if i not in (6, 10)),
    ]
    shuffled = [rank.mask_oracle(mask, seed=seed).order for seed in (0, 0, 1)]
    assert all(set(order[:2]) == {6, 10} for order in shuffled)
    assert shuffled[0].tolist() == shuffled[1].tolist() != shuffled[2].tolist()


def test_oracles_that_cannot_be():
    with pytest.raises(InputError, match="true or false"):
        rank.mask_oracle(np.ones((4, 4)))
    with pytest.raises(InputError, match="has 16 tokens"):
        rank.mask_oracle(np.ones((4, 4), bool), rank.random(9, 0))
    for value, part in ((True, "every"), (False, "no")):
        with pytest.raises(InputError, match=f"{part} one of its 16 tokens"):
            rank.mask_oracle(np.full((4, 4), value))


def test_random_per_step_is_new_in_every_step_and_the_same_for_a_seed(probe, image):
    orders = rank.RandomPerStep(16, seed=3)
    assert orders.at(1).order.tolist() == rank.RandomPerStep(16, seed=3).at(1).order.tolist()
    assert orders.at(1).order.tolist() != orders.at(2).order.tolist()
    with pytest.raises(InputError, match="at least 1 token"):
        rank.RandomPerStep(0)
    settings = {"steps": 3, "progress": False}
    kept, per_step = (
        probe.generate(image, "fox", interventions=[Prune(each, 5)], **settings)
        for each in (orders.at(0), orders)
    )
    assert per_step.reference_tokens_per_step == (5, 5, 5)
    assert np.asarray(per_step.image).tolist() != np.asarray(kept.image).tolist()
    described = per_step.provenance["interventions"][0]["ranking"]
    assert described == {"name": "random per step", "tokens": 16, "seed": 3}


@pytest.mark.parametrize(
    "ranking",
    [
        rank.uniform_grid(Grid(4, 4)),
        rank.mask_oracle(np.eye(4, dtype=bool)),
        rank.RandomPerStep(16),
        rank.random(16, 0).reversed(),
    ],
    ids=lambda ranking: ranking.name,
)
def test_everything_kept_is_the_plain_image(probe, plain, image, ranking):
    result = probe.generate(
        image, "fox", steps=2, interventions=[Prune(ranking, 16)], progress=False
    )
    np.testing.assert_array_equal(np.asarray(result.image), plain(image, "fox", steps=2))
