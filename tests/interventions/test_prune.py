"""Pruning edits the transformer's inputs and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from recast_probe.errors import InputError
from recast_probe.interventions import Intervention, Needs, Prune, Recast, WithoutReference
from recast_probe.selection.budgets import Adaptive, Fixed
from recast_probe.selection.rankings import Ranking, cross_image, random

QUIET = {"steps": 4, "progress": False}


def pixels(result) -> np.ndarray:
    return np.asarray(result.image).astype(int)


@pytest.fixture
def seen(pipeline):
    """Shapes and ids of every transformer call as the first block gets them."""
    calls = []

    def note(module, positional, inputs):
        calls.append((inputs["hidden_states"].clone(), inputs["encoder_hidden_states"].shape[1]))

    ids = []
    hooks = [
        pipeline.transformer.transformer_blocks[0].register_forward_pre_hook(
            note, with_kwargs=True
        ),
        pipeline.transformer.pos_embed.register_forward_pre_hook(
            lambda module, positional: ids.append(positional[0].clone())
        ),
    ]
    yield calls, ids
    for hook in hooks:
        hook.remove()


def test_everything_kept_is_the_plain_image(probe, plain, image):
    keep_all = Prune(random(16, seed=1), Fixed(16))
    result = probe.generate(image, "fox", interventions=[keep_all], **QUIET)
    np.testing.assert_array_equal(pixels(result), plain(image, "fox", steps=4))


def test_kept_tokens_are_the_best_and_stay_where_they_were(probe, image, seen):
    calls, ids = seen
    ranking = Ranking(order=np.array([5, 9, 2, *set(range(16)) - {5, 9, 2}]), name="by hand")
    probe.generate(image, "fox", **QUIET)
    full, full_ids = calls[:], ids[:]
    calls.clear()
    ids.clear()
    result = probe.generate(image, "fox", interventions=[Prune(ranking, 3)], **QUIET)
    assert result.reference_tokens_per_step == (3, 3, 3, 3)
    assert result.mean_budget == 3
    kept = [*range(16), 16 + 2, 16 + 5, 16 + 9]
    np.testing.assert_array_equal(calls[0][0], full[0][0][:, kept])
    text = calls[0][1]
    np.testing.assert_array_equal(ids[0], full_ids[0][[*range(text), *(text + np.array(kept))]])
    assert calls[0][0].shape[1] == 19
    assert len(calls) == 4


def test_pruning_changes_the_image_more_the_more_is_pruned(probe, plain, image):
    full = plain(image, "fox", steps=4)
    none = plain(None, "fox", steps=4).astype(int)
    nothing = probe.generate(image, "fox", interventions=[WithoutReference()], **QUIET)
    np.testing.assert_array_equal(pixels(nothing), none)
    assert nothing.reference_tokens_per_step == (0, 0, 0, 0)
    ranking = random(16, seed=0)
    results = [
        probe.generate(image, "fox", interventions=[Prune(ranking, n)], **QUIET) for n in (15, 1)
    ]
    distances = [np.abs(pixels(result) - full).mean() for result in (*results, nothing)]
    assert 0 < distances[0] < distances[1]
    assert np.abs(pixels(results[1]) - none).max() > 0


def test_pruning_starts_where_it_is_told(probe, image, seen):
    calls, _ = seen
    prune = Prune(random(16, seed=0), Adaptive(2, 10), start=1)
    result = probe.generate(image, "fox", interventions=[prune], **QUIET)
    budget = [prune.budget.tokens_at(step, 4, None) for step in range(4)]
    assert result.reference_tokens_per_step == (16, *budget[1:])
    assert [hidden.shape[1] - 16 for hidden, _ in calls] == [16, *budget[1:]]


def test_the_sigma_clock_runs_on_the_sigmas_of_the_run(probe, image):
    budget = Adaptive(2, 12, gamma=1.0, clock="sigma")
    sigmas = probe.profile(image, "fox", **QUIET).dataset["sigma"].values
    result = probe.generate(image, "fox", interventions=[Prune(random(16, 0), budget)], **QUIET)
    expected = [2 + int(10 * (1 - sigma) + 0.5) for sigma in sigmas]
    assert result.reference_tokens_per_step == tuple(expected)
    assert expected[0] == 2
    assert expected != sorted(set(expected))[:1] * 4


def test_both_branches_are_pruned(probe, image, seen):
    calls, _ = seen
    settings = {"true_cfg_scale": 2.0, "negative_prompt": "blurry"}
    probe.generate(image, "fox", interventions=[Prune(random(16, 0), 4)], **QUIET, **settings)
    assert [hidden.shape[1] for hidden, _ in calls] == [20] * 8


def test_interventions_are_applied_together(probe, image):
    first = Prune(Ranking(order=np.arange(16), name="first half"), 8)
    second = Prune(Ranking(order=np.roll(np.arange(16), -4), name="middle half"), 8)
    result = probe.generate(image, "fox", interventions=[first, second], **QUIET)
    assert result.reference_tokens_per_step == (4, 4, 4, 4)


def test_a_profile_of_a_pruned_run_has_gaps(probe, image):
    kept = np.array([1, 6, 7])
    ranking = Ranking(order=np.concatenate([kept, np.setdiff1d(np.arange(16), kept)]), name="hand")
    result = probe.generate(
        image, "fox", interventions=[Prune(ranking, 3, start=2)], profile=True, **QUIET
    )
    scores = result.profile.dataset["score"]
    assert not np.isnan(scores.sel(step=[0, 1])).any()
    assert not np.isnan(scores.sel(step=[2, 3], token=kept)).any()
    assert np.isnan(scores.sel(step=[2, 3]).values[..., np.setdiff1d(np.arange(16), kept)]).all()
    mass = result.profile.dataset["mass"].sel(query_group="generation", key_group="reference")
    np.testing.assert_allclose(scores.sum("token"), mass, atol=1e-6)
    with pytest.raises(InputError, match="without reference tokens"):
        probe.generate(image, "fox", interventions=[WithoutReference()], profile=True, **QUIET)


@dataclass(frozen=True)
class Shuffled(Intervention):
    """Two tokens, given in any order and twice."""

    steps: tuple[int, ...] = (1, 2, 3)

    def needs(self, run):
        return Needs(drops=self.steps)

    def reference_tokens(self, step):
        return np.array([7, 3, 7]) if step.sigma < 0.9 else None


def test_an_intervention_of_ones_own(probe, image):
    result = probe.generate(image, "fox", interventions=[Shuffled()], **QUIET)
    assert result.reference_tokens_per_step == (16, 2, 2, 2)
    (found,) = result.provenance["interventions"]
    assert found.pop("its content")["is"].endswith(".Shuffled")
    assert found == {"name": "Shuffled", "steps": [1, 2, 3]}
    with pytest.raises(InputError, match="Shuffled drops reference tokens in step 2"):
        probe.generate(image, "fox", interventions=[Shuffled((1, 3))], **QUIET)


@pytest.mark.parametrize(
    ("intervention", "message"),
    [
        (lambda: Prune(random(16, 0), 17), "keeps 17 reference tokens in step 0.*there are 16"),
        (lambda: Prune(random(16, 0), Adaptive(4, 40)), "between 1 and 16"),
        (lambda: Prune(random(12, 0), 4), "orders 12 reference tokens, but this run has 16"),
        (lambda: Prune(random(16, 0), 4, start=9), "start=9"),
        (lambda: Prune(random(16, 0), 4, start=1.5), "start must be a whole number"),
        (lambda: Prune(random(16, 0), 4, start=-1), "start must be a whole number"),
        (lambda: Prune(random(16, 0), 0), "0"),
        (lambda: Prune(random(16, 0), -2), "-2"),
        (lambda: Prune(random(16, 0), "half"), "not 'half'"),
        (lambda: Recast(20), "20"),
        (lambda: Recast(4, profile_step=4), "profile_step=4"),
    ],
)
def test_budgets_that_do_not_fit_are_refused_before_anything_runs(
    probe, image, seen, intervention, message
):
    calls, _ = seen
    with pytest.raises(InputError, match=message):
        probe.generate(image, "fox", interventions=[intervention()], **QUIET)
    assert not calls


def test_settings_are_described_for_the_record(probe, image):
    prune = Prune(random(16, seed=4), Adaptive(2, 8, gamma=1.0), start=1)
    described = prune.describe()
    assert described["budget"]["name"] == "Adaptive"
    assert described["budget"]["minimum"] == 2
    assert described["ranking"]["tokens"] == 16
    assert len(described["ranking"]["sha256"]) == 64
    other = Prune(random(16, seed=5), Adaptive(2, 8, gamma=1.0), start=1).describe()
    assert other["ranking"]["sha256"] != described["ranking"]["sha256"]
    result = probe.generate(image, "fox", interventions=[prune], **QUIET)
    assert result.provenance["interventions"] == [described]


class TestRecast:
    def test_is_profiling_and_pruning_by_hand(self, probe, image):
        result = probe.recast(image, "fox", budget=4, **QUIET)
        assert result.reference_tokens_per_step == (16, 4, 4, 4)
        profile = probe.profile(image, "fox", blocks="paper", profile_steps=0, **QUIET)
        np.testing.assert_array_equal(result.profile.dataset["score"], profile.dataset["score"])
        ranking = cross_image(profile, blocks="paper", steps=0)
        np.testing.assert_array_equal(result.ranking.order, ranking.order)
        by_hand = probe.generate(image, "fox", interventions=[Prune(ranking, 4, start=1)], **QUIET)
        np.testing.assert_array_equal(pixels(result), pixels(by_hand))

    def test_profiles_a_later_step(self, probe, image):
        result = probe.recast(image, "fox", budget=4, profile_step=2, blocks="single", **QUIET)
        assert result.reference_tokens_per_step == (16, 16, 16, 4)
        assert list(result.profile.dataset["step"].values) == [2]

    def test_has_the_papers_schedule_by_default(self, probe, image):
        result = probe.recast(image, "fox", **QUIET)
        budget = Adaptive.paper(16)
        expected = [budget.tokens_at(step, 4, None) for step in range(4)]
        assert result.reference_tokens_per_step == (16, *expected[1:])

    def test_may_be_profiled_as_well(self, probe, image):
        result = probe.generate(
            image,
            "fox",
            interventions=[Recast(4, blocks="single")],
            profile=True,
            blocks=0,
            profile_steps=1,
            heads=0,
            **QUIET,
        )
        scores = result.profile.dataset["score"]
        assert list(scores["block"].values) == [0, 2, 3, 4]
        assert list(scores["step"].values) == [
            0,
            1,
        ]
        assert scores.sizes["head"] == 2

    def test_runs_with_true_guidance(self, probe, image):
        settings = {"true_cfg_scale": 2.0, "negative_prompt": "blurry"}
        result = probe.recast(image, "fox", budget=4, **QUIET, **settings)
        assert list(result.profile.dataset["branch"].values) == ["conditional", "unconditional"]
        assert result.reference_tokens_per_step == (16, 4, 4, 4)

    def test_takes_one_prompt(self, probe, image):
        with pytest.raises(InputError, match="one by one"):
            probe.recast(image, ["fox", "snow"], budget=4, **QUIET)

    def test_several_runs_with_the_same_object(self, probe, image):
        recast = Recast(4)
        first = probe.generate(image, "fox", interventions=[recast], **QUIET)
        probe.generate(image, "snow", interventions=[recast], **QUIET)
        again = probe.generate(image, "fox", interventions=[recast], **QUIET)
        np.testing.assert_array_equal(first.ranking.order, again.ranking.order)
        np.testing.assert_array_equal(pixels(first), pixels(again))
