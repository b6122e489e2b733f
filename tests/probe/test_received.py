"""Received attention is the dense softmax's, in every group, also where tokens are missing."""

from __future__ import annotations

import numpy as np
import pytest

import recast_probe as rp
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.experiments import sink_knockout
from recast_probe.pocket.bench import pocket_bench
from recast_probe.testing import tiny

SETTINGS = {"steps": 2, "progress": False}


@pytest.fixture(scope="module")
def probe():
    return rp.Probe.tiny("flux-kontext")


@pytest.mark.parametrize("queries", ["generation", "text", "reference"])
def test_it_is_what_maps_of_all_queries_say(probe, queries):
    image = tiny.tiny_image()
    found = rp.received_attention(probe, image, "a cat", queries=queries, **SETTINGS)
    maps = probe.attention_maps(image, "a cat", group=queries, text=True, **SETTINGS)
    layout = found.layout
    for group, expected in (("text", maps.text), ("reference", maps.data)):
        ours = found.data.values[..., layout.span(group)]
        np.testing.assert_allclose(ours, expected.mean("query").values, atol=1e-6)
    mass = maps.shares.sel(key_group="generation").mean("query").values
    ours = found.data.values[..., layout.span("generation")].sum(-1)
    np.testing.assert_allclose(ours, mass, atol=1e-5)
    np.testing.assert_allclose(found.data.sum("token"), 1, atol=1e-5)
    assert set(found.data["part"].values[: layout.text]) <= {"prompt", "padding"}


def test_scores_are_those_of_a_profile_of_the_same_part(probe):
    image, chosen = tiny.tiny_image(), {"blocks": [1, 3], "profile_steps": 1}
    found = rp.received_attention(probe, image, "a cat", **chosen, **SETTINGS)
    profile = probe.profile(image, "a cat", **chosen, **SETTINGS)
    assert found.data.sizes["step"] == 1
    np.testing.assert_allclose(
        found.data.values[..., found.layout.span("reference")], profile.score.values, atol=1e-6
    )
    assert found.selection == profile.selection_text()
    assert found.provenance["seed"] == 0


def test_cut_tokens_receive_nothing_and_missing_ones_are_unknown(probe):
    image = tiny.tiny_image()
    cut = rp.Knockout("text", "generation", tokens=[0])
    found = rp.received_attention(probe, image, "a cat", interventions=cut, **SETTINGS)
    assert (found.data.values[..., 0] == 0).all()
    kept = rp.Keep((1, 2), start=1)
    part = rp.received_attention(probe, image, "a cat", interventions=kept, **SETTINGS)
    values = part.data.values[..., part.layout.span("reference")]
    assert np.isnan(values[1]).all(axis=(0, 1)).tolist() == [
        each not in (1, 2) for each in range(16)
    ]
    assert not np.isnan(values[0]).any()
    np.testing.assert_allclose(np.nansum(part.data.values, -1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ["flux2-klein", "qwen-image-edit", "bria-fibo-edit"])
def test_other_families_have_it(name):
    prompt = '{"edit_instruction": "snow"}' if name == "bria-fibo-edit" else "a cat"
    found = rp.received_attention(rp.Probe.tiny(name), tiny.tiny_image(), prompt, **SETTINGS)
    np.testing.assert_allclose(found.data.sum("token"), 1, atol=1e-5)


def test_what_cannot_be_recorded_is_refused(probe):
    with pytest.raises(InputError, match="one prompt"):
        rp.received_attention(probe, tiny.tiny_image(), ["a", "b"], **SETTINGS)
    with pytest.raises(InputError, match="nobody"):
        rp.received_attention(probe, tiny.tiny_image(), "a", queries="nobody", **SETTINGS)
    with pytest.raises(UnsupportedPipelineError, match="beside"):
        rp.received_attention(rp.Probe.tiny("flux-ip-adapter"), tiny.tiny_image(), "a", **SETTINGS)


def test_sinks_are_cut_beside_as_many_random_tokens(tmp_path):
    probe, cases = rp.Probe.pocket(), pocket_bench(2, 1)
    settings = {"steps": 2, "random_sets": 2, "progress": False}
    found = sink_knockout(probe, cases, {"text": [0, 3]}, folder=tmp_path, **settings)
    arms = ["full", "chosen cut", "random cut 0", "random cut 1"]
    assert found.runs["arm"].unique().tolist() == arms
    change = found.runs.pivot(index="subject", columns="arm", values="change-whole_to_full")
    assert (change["full"] == 0).all()
    assert (change[arms[1:]] > 0).all(axis=None)
    effect = found.effects.loc["change-whole_to_full"]
    by_hand = change["chosen cut"] - change[arms[2:]].mean(axis=1)
    assert effect["difference"] == pytest.approx(by_hand.mean())
    assert effect["subjects"] == 2
    cut = [rp.Knockout("text", "generation", tokens=[0, 3])]
    image = probe.generate(
        cases[0].reference, cases[0].prompt, 2, cases[0].seed, cut, progress=False
    ).image
    whole = probe.generate(cases[0].reference, cases[0].prompt, 2, cases[0].seed, progress=False)
    apart = np.abs(np.asarray(image, float) - np.asarray(whole.image, float)).mean() / 255
    assert change.loc[cases[0].subject, "chosen cut"] == pytest.approx(apart)
    assert next(iter(found.rows()))["measure"] == "change of the whole image"
    again = sink_knockout(probe, cases, {"text": [0, 3]}, folder=tmp_path, **settings)
    assert again.runs.equals(found.runs)


def test_a_repeated_token_is_cut_once_beside_one_random_one(monkeypatch):
    probe, cases, cuts = rp.Probe.pocket(), pocket_bench(2, 1), []
    generate = rp.Probe.generate

    def noted(self, *arguments, **settings):
        cuts.append([len(each.tokens) for each in settings["interventions"]])
        return generate(self, *arguments, **settings)

    monkeypatch.setattr(rp.Probe, "generate", noted)
    settings = {"steps": 1, "random_sets": 1, "progress": False}
    found = sink_knockout(probe, cases, {"text": [3, 0, 3], "reference": []}, **settings)
    assert found.tokens == {"text": (0, 3)}
    assert cuts == 2 * [[], [2], [2]]


def test_knockouts_that_make_no_comparison_are_refused(probe):
    cases = pocket_bench(2, 1)
    pocket = rp.Probe.pocket()
    for given, message in (
        ({}, "no sinks"),
        ({"text": [99]}, "99"),
        ({"text": range(20)}, "20 of 32 text"),
        ({"text": [0.9]}, "0.9"),
        ({"text": "12"}, "'12'"),
        ({"reference": [0], "reference_0": [0]}, "overlap"),
    ):
        with pytest.raises(InputError, match=message):
            sink_knockout(pocket, cases, given, steps=2, progress=False)
    with pytest.raises(InputError, match="no cases"):
        sink_knockout(pocket, [], {"text": [0]}, steps=2)
