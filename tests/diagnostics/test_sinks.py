"""Planted sinks are found, content is not taken for one, and shares add up."""

from __future__ import annotations

import numpy as np
import pytest

from recast_probe import diagnostics
from recast_probe.diagnostics import sinks
from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles.received import ReceivedAttention
from recast_probe.testing.planted_received import LAYOUT, planted_received

RUNS = 6


def runs(high=(), **settings):
    return [planted_received(seed, high, **settings) for seed in range(RUNS)]


def test_planted_sinks_are_found_in_their_groups():
    places = [0, LAYOUT.text + 5, LAYOUT.total - 1]
    found = sinks(runs(places), draws=199)
    assert np.flatnonzero(found.is_sink).tolist() == places
    assert [found.of_group(name) for name in LAYOUT.groups] == [[0], [5], [15]]
    assert (found.p_value.values[places] <= 0.05).all()
    assert found.summary()["sinks"] == 3
    assert found.highlighted() == {}


def test_tokens_that_stand_out_by_content_are_none():
    found = sinks(runs(content=3), times=3, share=0.1, draws=199)
    assert not found.is_sink.any(), found
    alone = sinks(runs([0], heads=0.25), draws=199)
    assert not alone.is_sink.any(), "in a quarter of the heads only"
    assert alone.prevalence.values[:, 0] == pytest.approx([0.25] * RUNS)
    assert sinks(runs([0], heads=0.25), share=0.25, draws=199).of_group("text") == [0]


def test_the_null_keeps_its_level():
    """Values at random places: a group's highest is called a sink in 5 % of the trials at most."""
    random, wrong = np.random.default_rng(0), 0
    for trial in range(60):
        made = [planted_received(1000 * trial + seed, content=8) for seed in range(4)]
        wrong += bool(
            sinks(made, share=1e-9, draws=99, seed=int(random.integers(99))).is_sink.any()
        )
    # three groups are tested, each at 5 %
    assert wrong / 60 <= 0.15 + 3 * np.sqrt(0.15 * 0.85 / 60)


def test_place_is_told_from_content_by_runs_without_content():
    """Subjects always in the middle draw attention to one place; a reference of noise does not."""
    middle = LAYOUT.total - 6
    subjects = runs([0, middle])
    assert sinks(subjects, draws=199).of_group("reference") == [10]
    found = sinks(subjects, contentless=[planted_received(90, [0])], draws=199)
    assert found.of_group("reference") == []
    assert found.of_group("text") == [0]
    assert found.contentless.values[[0, middle]].tolist() == [1, 0]


def test_shares_add_up_and_are_those_of_the_values():
    found = sinks(runs([0, 5]), draws=99)
    parts = ("prompt", "padding", "generation", "reference")
    assert sum(found.mass[name].mean for name in parts) == pytest.approx(1, abs=1e-5)
    assert sum(found.tokens[name] for name in parts) == pytest.approx(1)
    values = np.stack([each.per_token().values for each in runs([0, 5])])
    assert found.mass["padding"].mean == pytest.approx(values[:, 4:6].sum(1).mean())
    assert found.mass["first text token"].mean == pytest.approx(values[:, 0].mean())
    assert found.mass["sinks"].mean == pytest.approx(values[:, [0, 5]].sum(1).mean())
    assert found.factor.values == pytest.approx(values.mean(0) * LAYOUT.total)
    numbers = found.to_dict()
    assert numbers["padding_tokens"] == pytest.approx(2 / 38)


def test_what_cannot_be_compared_is_refused():
    ok = runs([0])
    for wrong, message in (
        (ok[:1], "not 1"),
        ([*ok, planted_received(0, selection="step 3")], "step 3"),
        ([*ok, 3], "int"),
    ):
        with pytest.raises(InputError, match=message):
            sinks(wrong)
    for settings, message in (
        ({"times": 1}, "times.*1"),
        ({"times": float("nan")}, "nan"),
        ({"share": 0}, "share.*0"),
        ({"draws": 5}, "draws.*5"),
    ):
        with pytest.raises(InputError, match=message):
            sinks(ok, **settings)
    gone = ok[0].data.copy()
    gone[0, 0, 0, 30] = np.nan
    with pytest.raises(InputError, match="absent"):
        sinks([ok[1], ReceivedAttention(gone)])


def test_received_attention_checks_its_shape():
    layout = TokenLayout(2, Grid(1, 2), (Grid(1, 1),))
    settings = {"layout": layout, "steps": [0], "blocks": [0], "heads": [0]}
    made = ReceivedAttention.build(np.full((1, 1, 1, 5), 0.2), **settings)
    assert made.data["part"].values.tolist() == ["text"] * 2 + ["generation"] * 2 + ["reference"]
    assert made.data["index"].values.tolist() == [0, 1, 0, 1, 0]
    for shape in ((1, 1, 1, 4), (1, 1, 5)):
        with pytest.raises(InputError):
            ReceivedAttention.build(np.ones(shape), **settings)
    with pytest.raises(InputError, match="token"):
        ReceivedAttention(made.data.isel(token=slice(3)))
    assert diagnostics.Sinks.name == "sinks"
