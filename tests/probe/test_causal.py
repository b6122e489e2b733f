"""The causal oracle runs the pipeline with and without tokens, and nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest

from recast_probe import rank
from recast_probe.errors import InputError
from recast_probe.interventions import Keep, Prune

TILES = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
QUIET = {"steps": 2, "progress": False}


def redness(picture) -> float:
    return float(np.asarray(picture, np.float64)[..., 0].mean())


def without(probe, image, tile, seeds, start=0) -> float:
    kept = tuple(set(range(16)) - set(tile))
    return np.mean(
        [
            redness(
                probe.generate(
                    image, "fox", seed=seed, interventions=[Keep(kept, start)], **QUIET
                ).image
            )
            for seed in seeds
        ]
    )


def test_effects_are_differences_of_runs_with_the_same_noise(probe, image):
    seeds = (3, 8)
    ranking = rank.causal_oracle(probe, image, "fox", redness, seeds=seeds, **QUIET)
    full = np.mean(
        [redness(probe.generate(image, "fox", seed=seed, **QUIET).image) for seed in seeds]
    )
    wanted = [full - without(probe, image, tile, seeds) for tile in TILES]
    assert ranking.details["effects"] == pytest.approx(wanted, abs=1e-12)
    assert len(set(wanted)) == 4
    assert set(ranking.order[:4]) == set(TILES[int(np.argmax(wanted))])
    assert ranking.score[TILES[2]] == pytest.approx([wanted[2] / 4] * 4)
    assert ranking.name == "causal leave-out"
    assert ranking.details["runs"] == 10
    assert json.loads(json.dumps(ranking.details)) == ranking.details
    again = rank.causal_oracle(probe, image, "fox", redness, seeds=seeds, **QUIET)
    assert again.order.tolist() == ranking.order.tolist()


def test_greedy_finds_the_pair_that_is_best_by_trying(probe, image):
    ranking = rank.causal_oracle(
        probe, image, "fox", redness, method="greedy", chosen=1, start=1, **QUIET
    )
    alone = [
        redness(probe.generate(image, "fox", interventions=[Keep(tuple(t), 1)], **QUIET).image)
        for t in TILES
    ]
    assert set(ranking.order[:4]) == set(TILES[int(np.argmax(alone))])
    assert ranking.score is None
    assert ranking.details["runs"] == 5
    result = probe.generate(image, "fox", interventions=[Prune(ranking, 4, start=1)], **QUIET)
    assert redness(result.image) == max(alone)
    described = result.provenance["interventions"][0]["ranking"]
    assert described["details"]["chosen"] == 1


def test_adapters_take_groups_of_tokens(adapter_probe, image):
    with pytest.raises(InputError, match="give groups of token indices"):
        rank.causal_oracle(adapter_probe, image, "fox", redness, **QUIET)
    tokens = adapter_probe.layout(image).reference_tokens
    groups = [[token] for token in range(tokens)]
    ranking = rank.causal_oracle(adapter_probe, image, "fox", redness, groups=groups, **QUIET)
    assert sorted(ranking.order) == list(range(tokens))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile": 0}, "at least 1 token"),
        ({"method": "shapley"}, "method is one of"),
        ({"chosen": 2}, "only the greedy"),
        ({"groups": [[0, 1], [1]]}, "exactly once"),
        ({"groups": [[0, 1], [2]]}, "hold 3 tokens, but this run has 16"),
        ({"seeds": ()}, "seeds must be"),
        ({"seeds": (1, 1)}, "seeds must be"),
        ({"start": 9}, "start=9"),
        ({"steps": 0}, "steps must be"),
        ({"prompt": ["fox", "hen"]}, "one prompt"),
        ({"image": None}, "no reference tokens to rank"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_runs(
    probe, image, monkeypatch, settings, message
):
    monkeypatch.setattr(
        type(probe.pipe), "__call__", lambda *_, **__: pytest.fail("the pipeline ran")
    )
    arguments = {"image": image, "prompt": "fox", **QUIET, **settings}
    with pytest.raises(InputError, match=message):
        rank.causal_oracle(probe, score=redness, **arguments)
