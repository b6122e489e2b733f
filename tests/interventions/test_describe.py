"""Settings in the provenance: what stored results are told apart by, so they stay as they are."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from recast_probe.content.description import described
from recast_probe.interventions import (
    Intervention,
    Keep,
    Knockout,
    Merge,
    Prune,
    Recast,
    Record,
    ReuseReference,
    Similarity,
    StepCache,
    TokenCache,
    WithoutReference,
)
from recast_probe.interventions.drift import RecordDrift
from recast_probe.selection.baselines import RandomPerStep
from recast_probe.selection.budgets import Adaptive, Aligned, Fixed
from recast_probe.selection.mass import MassShare
from recast_probe.selection.rankings import Ranking

RANKING = Ranking(np.array([2, 0, 1, 3]), "by hand", None, {"blocks": "all", "step": 0})
DESCRIBED = {
    "name": "by hand",
    "tokens": 4,
    "sha256": "3437a88869e0c209446e71d28b96a3a8fb3eeeba1e300d4b86f9c328ae48f91d",
    "details": {"blocks": "all", "step": 0},
}
ONE_AND_THREE = "8e8f6841378f772c40db2f07e876776d50c481ed7329ebcab75312e3b1fa7807"


@pytest.mark.parametrize(
    ("intervention", "expected"),
    [
        (WithoutReference(), {"name": "WithoutReference"}),
        (Keep((3, 1, 3), 2), {"name": "Keep", "tokens": 2, "sha256": ONE_AND_THREE, "start": 2}),
        (
            Prune(RANKING, 3, start=1),
            {
                "name": "Prune",
                "ranking": DESCRIBED,
                "budget": {"name": "Fixed", "tokens": 3},
                "start": 1,
            },
        ),
        (
            Prune(RandomPerStep(4, 7), Adaptive(1, 3, gamma=2.0)),
            {
                "name": "Prune",
                "ranking": {"name": "random per step", "tokens": 4, "seed": 7},
                "budget": {
                    "name": "Adaptive",
                    "minimum": 1,
                    "maximum": 3,
                    "gamma": 2.0,
                    "clock": "step",
                },
                "start": 0,
            },
        ),
        (
            Prune(RANKING, MassShare(0.5)),
            {
                "name": "Prune",
                "ranking": DESCRIBED,
                "budget": {"name": "MassShare", "share": 0.5},
                "start": 0,
            },
        ),
        (
            Prune(RANKING, Aligned(Fixed(3), 2, 4)),
            {
                "name": "Prune",
                "ranking": DESCRIBED,
                "budget": {
                    "name": "Aligned",
                    "budget": {"name": "Fixed", "tokens": 3},
                    "multiple": 2,
                    "most": 4,
                },
                "start": 0,
            },
        ),
        (
            Recast(4),
            {
                "name": "Recast",
                "budget": {"name": "Fixed", "tokens": 4},
                "blocks": "paper",
                "profile_step": 0,
                "ranking": "cross-image",
                "every": None,
                "worst_first": False,
            },
        ),
        (
            Recast(Fixed(3), ("double", 4), 1, "cosine", every=2, worst_first=True),
            {
                "name": "Recast",
                "budget": {"name": "Fixed", "tokens": 3},
                "blocks": ["double", 4],
                "profile_step": 1,
                "ranking": "cosine",
                "every": 2,
                "worst_first": True,
            },
        ),
        (
            Recast(4, blocks=range(2)),
            {
                "name": "Recast",
                "budget": {"name": "Fixed", "tokens": 4},
                "blocks": [0, 1],
                "profile_step": 0,
                "ranking": "cross-image",
                "every": None,
                "worst_first": False,
            },
        ),
        (
            Recast(4, blocks=np.int64(2)),
            {
                "name": "Recast",
                "budget": {"name": "Fixed", "tokens": 4},
                "blocks": 2,
                "profile_step": 0,
                "ranking": "cross-image",
                "every": None,
                "worst_first": False,
            },
        ),
        (
            Merge(8),
            {
                "name": "Merge",
                "budget": {"name": "Fixed", "tokens": 8},
                "start": 0,
                "proportional": True,
                "window": None,
            },
        ),
        (
            Merge(8, 1, False, 3),
            {
                "name": "Merge",
                "budget": {"name": "Fixed", "tokens": 8},
                "start": 1,
                "proportional": False,
                "window": 3,
            },
        ),
        (
            Knockout("reference", "generation"),
            {
                "name": "Knockout",
                "from_group": "reference",
                "to_group": "generation",
                "tokens": None,
                "blocks": "all",
                "heads": None,
                "steps": None,
                "removal": "renormalised",
            },
        ),
        (
            Knockout("reference", "text", [3, 1, 3], "single", 1, (2, 0), "value-zeroed"),
            {
                "name": "Knockout",
                "from_group": "reference",
                "to_group": "text",
                "tokens": {"count": 2, "sha256": ONE_AND_THREE},
                "blocks": "single",
                "heads": [1],
                "steps": [0, 2],
                "removal": "value-zeroed",
            },
        ),
        (ReuseReference(), {"name": "ReuseReference", "start": 1, "refresh": None, "device": None}),
        (
            ReuseReference(2, [5, 3], "cpu"),
            {"name": "ReuseReference", "start": 2, "refresh": [3, 5], "device": "cpu"},
        ),
        (
            ReuseReference(refresh=4),
            {"name": "ReuseReference", "start": 1, "refresh": 4, "device": None},
        ),
        (
            StepCache(5 / 7),
            {
                "name": "StepCache",
                "computed": 0.7142857142857143,
                "threshold": None,
                "extrapolate": False,
            },
        ),
        (
            StepCache([4, 2], extrapolate=True),
            {"name": "StepCache", "computed": [2, 4], "threshold": None, "extrapolate": True},
        ),
        (
            StepCache(threshold=0.1),
            {"name": "StepCache", "computed": None, "threshold": 0.1, "extrapolate": False},
        ),
        (
            TokenCache(),
            {
                "name": "TokenCache",
                "interval": 4,
                "fresh_share": {
                    "mean": 0.1,
                    "layer_slope": 0.5,
                    "stream_slope": 0.6,
                    "step_slope": 0.0,
                },
                "score": "attention",
                "pool": "stream",
                "first_full": 3,
                "interval_slope": 0.0,
                "age_weight": 0.25,
                "spread_bonus": 0.0,
                "spread_window": 4,
                "seed": 0,
            },
        ),
        (
            TokenCache(2, 0.5, "random", "generation", seed=3),
            {
                "name": "TokenCache",
                "interval": 2,
                "fresh_share": {
                    "mean": 0.5,
                    "layer_slope": 0.0,
                    "stream_slope": 0.0,
                    "step_slope": 0.0,
                },
                "score": "random",
                "pool": "generation",
                "first_full": 3,
                "interval_slope": 0.0,
                "age_weight": 0.25,
                "spread_bonus": 0.0,
                "spread_window": 4,
                "seed": 3,
            },
        ),
        (Similarity(), {"name": "Similarity", "blocks": "paper", "step": 0}),
        (Similarity([1, 3], 2), {"name": "Similarity", "blocks": [1, 3], "step": 2}),
        (
            Record(),
            {
                "name": "Record",
                "what": ["residual"],
                "tokens": "reference",
                "indices": "all",
                "blocks": "all",
                "steps": None,
            },
        ),
        (
            Record(("values", "keys"), "text", (1, 4), [0, "single.1"], [2, 0]),
            {
                "name": "Record",
                "what": ["keys", "values"],
                "tokens": "text",
                "indices": [1, 4],
                "blocks": [0, "single.1"],
                "steps": [2, 0],
            },
        ),
        (
            Record(steps=1),
            {
                "name": "Record",
                "what": ["residual"],
                "tokens": "reference",
                "indices": "all",
                "blocks": "all",
                "steps": 1,
            },
        ),
        (RecordDrift((2, 0)), {"name": "RecordDrift", "sources": [0, 2]}),
    ],
    ids=lambda value: "" if isinstance(value, dict) else type(value).__name__,
)
def test_settings_are_described_as_ever(intervention, expected):
    assert json.loads(json.dumps(intervention.describe())) == expected
    assert list(intervention.describe()) == list(expected)


def test_an_intervention_of_ones_own_is_described_by_its_fields():
    @dataclass(frozen=True)
    class Custom(Intervention):
        budget: Fixed
        share: float = float("inf")
        blocks: range = range(2)

    expected = {"budget": {"name": "Fixed", "tokens": 3}, "share": "inf", "blocks": [0, 1]}
    found = Custom(Fixed(3)).describe()
    assert found.pop("its content") == described(Custom(Fixed(3)))
    assert found == {"name": "Custom", **expected}
