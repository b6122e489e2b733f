"""Attribution: what is measured, how it is estimated, resumed and related."""

from __future__ import annotations

import numpy as np
import pytest

from recast_probe.errors import InputError
from recast_probe.experiments.attribution import attribution, knockouts, sites
from recast_probe.experiments.attribution_result import sampled_effects
from recast_probe.interventions import Knockout
from recast_probe.probe import Probe

QUIET = {"steps": 2, "progress": False}


def brightness(image) -> float:
    return float(np.asarray(image).mean())


def test_effects_are_those_of_the_knockouts(probe, image):
    found = attribution(probe, image, "fox", brightness, seeds=(0, 3), **QUIET)
    assert found.data["effect"].dims == ("block",)
    expected = []
    for seed in (0, 3):
        full = brightness(probe.generate(image, "fox", seed=seed, **QUIET).image)
        cut = [Knockout("reference", "generation", blocks=2)]
        made = probe.generate(image, "fox", seed=seed, interventions=cut, **QUIET)
        expected.append(full - brightness(made.image))
    row = found.data.sel(block=2)
    assert float(row["effect"]) == pytest.approx(np.mean(expected))
    assert float(row["effect_low"]) <= float(row["effect"]) <= float(row["effect_high"])
    assert (found.data["distance"] > 0).all()
    assert found.metric == "brightness"
    assert "every block by itself, 2 steps, 2 seeds" in found.selection
    assert "largest: block" in repr(found)
    assert set(found.summary()) == {"full", "largest_distance", "largest_effect"}


def test_without_a_metric_there_is_the_distance(probe, image):
    found = attribution(probe, image, "fox", over="head", blocks=[1, 3], heads=[1], **QUIET)
    assert found.data["distance"].shape == (2, 1)
    assert np.isnan(found.data["effect"]).all()
    assert np.isnan(found.data["distance_low"]).all()
    with pytest.raises(InputError, match="value of effect"):
        found.top(by="effect")


def test_an_interrupted_attribution_resumes_to_the_same_map(
    probe, image, tmp_path, monkeypatch, capsys
):
    settings = {"over": "head", "blocks": "double", "steps": 2, "metric": brightness}
    whole = attribution(probe, image, "fox", **settings, progress=False)
    runs, generate = [], Probe.generate

    def interrupted(self, *arguments, **options):
        if len(runs) == 3:
            raise KeyboardInterrupt
        runs.append(options["interventions"])
        return generate(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Probe, "generate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            attribution(probe, image, "fox", **settings, store=tmp_path)
    said = capsys.readouterr().err
    assert "4 runs to go, about" in said
    assert "MB of latents" in said
    runs.clear()

    def counted(self, *arguments, **options):
        runs.append(options["interventions"])
        return generate(self, *arguments, **options)

    monkeypatch.setattr(Probe, "generate", counted)
    again = attribution(probe, image, "fox", **settings, store=tmp_path)
    assert "2 runs to go, about" in capsys.readouterr().err
    assert len(runs) == 3  # the full run and the two that were missing
    assert again.data.identical(whole.data)
    runs.clear()
    assert attribution(probe, image, "fox", **settings, store=tmp_path).data.identical(whole.data)
    assert not runs
    with pytest.raises(InputError, match="other settings: removal"):
        attribution(probe, image, "fox", **settings, store=tmp_path, removal="value-zeroed")


def test_sampled_effects_are_differences_of_means():
    rng = np.random.default_rng(0)
    members = rng.random((400, 3)) < 0.3
    truth = np.array([0.5, 0.0, -0.2])
    value = 1 - members @ truth + rng.normal(scale=0.1, size=400)
    found = sampled_effects(np.ones(1), value[None], 1 - value[None], members, ([4, 5, 6], []))
    np.testing.assert_allclose(found["effect"], truth, atol=0.06)
    np.testing.assert_allclose(found["distance"], found["effect"])
    assert ((found["effect_low"] < truth) & (truth < found["effect_high"])).all()
    np.testing.assert_array_equal(found["runs"], members.sum(0))
    never = sampled_effects(np.ones(1), value[None], value[None], members & False, ([4, 5, 6], []))
    assert np.isnan(never["effect"]).all()


def test_relation_to_how_heads_read(probe, image):
    found = attribution(probe, image, "fox", over="head", **QUIET)
    profile = probe.profile(image, "fox", **QUIET)
    table = found.relate(profile)
    assert set(table["value"]) == {"distance"}
    assert {"mass", "top_share", "marginal_entropy", "information"} <= set(table["feature"])
    assert (table["count"] == 5).all()  # blocks: heads of one are not independent
    assert ((table["low"] <= table["spearman"]) & (table["spearman"] <= table["high"])).all()
    blocks = attribution(probe, image, "fox", **QUIET).relate(profile)
    assert (blocks["count"] == 5).all()
    with pytest.raises(InputError, match="lacks some"):
        found.relate(probe.profile(image, "fox", blocks=[0], **QUIET))


def test_sites_and_knockouts(probe):
    assert sites(probe, "block", "single") == [(2, None), (3, None), (4, None)]
    assert sites(probe, "head", [1], 1) == [(1, 1)]
    cut = knockouts([(0, 0), (2, 1), (0, 1)], steps=[1])
    assert cut == [
        Knockout("reference", "generation", blocks=0, heads=[0, 1], steps=1),
        Knockout("reference", "generation", blocks=2, heads=1, steps=1),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"over": "layer"}, "'layer'"),
        ({"heads": 0}, "heads=0"),
        ({"seeds": (1, 1)}, "different numbers"),
        ({"sample": 3}, "sample must be a whole number of at least 4"),
        ({"sample": 8, "share": 1.0}, "share must lie between"),
        ({"edge": ("reference", "sky")}, "no token group 'sky'"),
        ({"metric": lambda made: float("nan")}, "metric of an image is nan"),
    ],
)
def test_settings_that_do_not_fit_are_refused(probe, image, settings, message):
    with pytest.raises(InputError, match=message):
        attribution(probe, image, "fox", **settings, **QUIET)
