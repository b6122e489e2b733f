"""Rankings and budgets: which tokens, how many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_probe import budget
from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.selection import Adaptive, Fixed, Ranking, cross_image, random
from recast_probe.selection.rankings import self_attention


def profile_with(score, kinds=("double", "single", "single")):
    """score (step, block, head, token) of a model with these three blocks."""
    steps, blocks, heads, tokens = score.shape
    return AttentionProfile.build(
        score=score[None],
        mass=np.full((1, steps, blocks, heads, 3, 3), 1 / 3),
        conditional_entropy=np.zeros((1, steps, blocks, heads)),
        steps=range(steps),
        timesteps=np.linspace(1000, 1, steps),
        sigmas=np.linspace(1, 0, steps),
        blocks=range(blocks),
        block_kinds=kinds,
        heads=range(heads),
        layout=TokenLayout(4, Grid(2, 2), (Grid(1, tokens),)),
    )


def test_cross_image_ranks_by_the_mean_over_selected_blocks_and_steps():
    score = np.zeros((2, 3, 2, 4), np.float32)
    score[0, 0, :, 3] = 9  # the double-stream block
    score[0, 1, :, 2] = 2
    score[0, 2, :, 1] = 3
    score[1, :, :, 0] = 9  # a later step
    profile = profile_with(score)
    assert cross_image(profile, blocks="single").order.tolist() == [1, 2, 0, 3]
    assert cross_image(profile, blocks="paper").order.tolist() == [1, 0, 2, 3]
    assert cross_image(profile).order.tolist() == [1, 0, 2, 3]
    assert "block paper (2)" in cross_image(profile).details["selection"]
    assert cross_image(profile, blocks="all", steps=None).order.tolist() == [0, 3, 1, 2]
    assert "step 0" in cross_image(profile).details["selection"]


def test_a_model_without_single_stream_blocks_is_ranked_and_budgeted_by_all_blocks():
    score = np.random.default_rng(0).random((2, 3, 2, 4), np.float32)
    profile = profile_with(score, ["double"] * 3)
    assert cross_image(profile).order.tolist() == np.argsort(-score[0].mean((0, 1))).tolist()
    assert cross_image(profile).details["selection"] == "blocks all (0-2), step 0, all heads"
    among = AttentionProfile(profile.dataset.assign_attrs(queries="reference"))
    assert self_attention(among).order.tolist() == cross_image(profile).order.tolist()
    for made in (
        lambda **chosen: budget.entropy_matched(profile, 5, **chosen),
        lambda **chosen: budget.mass_threshold_per_step(profile, 0.5, **chosen),
    ):
        assert made() == made(blocks="all")
        with pytest.raises(InputError, match="'single' selects no block"):
            made(blocks="single")


def test_ties_keep_the_order_of_the_tokens():
    ranking = Ranking.from_score(np.array([1.0, 2.0, 1.0, 2.0]), "planted", {})
    assert ranking.order.tolist() == [1, 3, 0, 2]
    assert ranking.reversed().order.tolist() == [2, 0, 3, 1]
    assert ranking.top(3).tolist() == [0, 1, 3]


def test_a_ranking_does_not_follow_its_source():
    order = np.array([2, 0, 1])
    ranking = Ranking(order, "planted")
    order[:] = 0
    assert ranking.order.tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="read-only"):
        ranking.order[0] = 1


def test_budgets_are_plain_numbers():
    assert type(Fixed(np.int64(3)).tokens) is int
    assert type(Adaptive(np.int32(1), np.int64(9)).maximum) is int


@pytest.mark.parametrize("count", [0, -1, 5])
def test_impossible_counts_are_refused(count):
    with pytest.raises(InputError, match=f"Cannot keep {count} of 4"):
        random(4, seed=0).top(count)


def test_broken_rankings_are_refused():
    with pytest.raises(InputError, match="exactly once"):
        Ranking(np.array([0, 0, 1]), "broken")
    with pytest.raises(InputError, match="exactly once"):
        Ranking(np.array([0.2, 1.7]), "broken")
    with pytest.raises(InputError, match="not finite"):
        Ranking.from_score(np.array([0.0, np.nan]), "broken", {})


@given(st.integers(1, 300), st.integers(0, 2**32))
def test_random_rankings_follow_their_seed(tokens, seed):
    first, again = random(tokens, seed), random(tokens, seed)
    assert first.order.tolist() == again.order.tolist()
    assert sorted(first.order.tolist()) == list(range(tokens))


def test_equation_four_of_the_paper():
    budget = Adaptive(256, 1024)
    schedule = budget.schedule(28)
    assert schedule[0] == 256
    assert schedule[-1] == 1024
    assert budget.mean(28) == pytest.approx(516.7, abs=0.5)
    assert (np.diff(schedule) >= 0).all()
    assert Adaptive.paper(4096) == budget
    assert Adaptive.paper(256) == Adaptive(16, 64)
    # 12.5 and 50: half up, as everywhere
    assert Adaptive.paper(200) == Adaptive(13, 50)
    assert Adaptive.paper(10) == Adaptive(1, 3)


def test_the_sigma_clock_uses_the_schedulers_noise_levels():
    sigmas = [1.0, 0.9, 0.5, 0.1]
    found = Adaptive(0 + 10, 110, gamma=1.0, clock="sigma").schedule(4, sigmas)
    assert found.tolist() == [10, 20, 60, 100]
    with pytest.raises(InputError, match="sigma of every step"):
        Adaptive(1, 2, clock="sigma").tokens_at(0, 4)


@given(st.integers(1, 500), st.integers(0, 500), st.floats(0.1, 5), st.integers(1, 60))
def test_adaptive_budgets_grow_within_their_bounds(minimum, more, gamma, steps):
    schedule = Adaptive(minimum, minimum + more, gamma).schedule(steps)
    assert schedule.min() >= minimum
    assert schedule.max() <= minimum + more
    assert (np.diff(schedule) >= 0).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fixed(0),
        lambda: Fixed(True),
        lambda: Fixed(2.5),
        lambda: Adaptive(0, 5),
        lambda: Adaptive(6, 5),
        lambda: Adaptive(1, 5, gamma=0),
        lambda: Adaptive(1, 5, gamma=float("nan")),
        lambda: Adaptive(1, 5, clock="wall"),
        lambda: Fixed(3).tokens_at(4, 4),
    ],
)
def test_impossible_budgets_are_refused(make):
    with pytest.raises(InputError):
        make()
