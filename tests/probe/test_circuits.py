"""Every causal tool names the path that was planted in the weights."""

from __future__ import annotations

import numpy as np
import pytest

from recast_probe.diagnostics import copy_heads, flow
from recast_probe.experiments.attribution import attribution
from recast_probe.experiments.path_profiles import path_profiles
from recast_probe.interventions import Knockout
from recast_probe.probe import Probe
from recast_probe.testing import tiny
from recast_probe.testing.circuits import circuit

QUIET = {"steps": 2, "progress": False}
EDGES = [
    ("reference", "generation"),
    ("reference", "text"),
    ("text", "generation"),
    ("generation", "reference"),
    ("text", "reference"),
    ("generation", "text"),
]
PLANTED = {
    "direct": {("reference", "generation")},
    "text": {("reference", "text"), ("text", "generation")},
    # the other head of the block sees the text, which says nothing of the reference
    "head": {("reference", "generation"), ("text", "generation")},
}


@pytest.fixture(scope="module")
def probes():
    return {path: Probe(circuit(path)) for path in PLANTED}


def latents(result) -> np.ndarray:
    return np.asarray(result.image).astype(int)


@pytest.mark.parametrize("path", PLANTED)
def test_the_reference_reaches_the_image(probes, image, path):
    probe = probes[path]
    one = latents(probe.generate(image, "fox", **QUIET))
    other = latents(probe.generate(tiny.tiny_image(seed=5), "fox", **QUIET))
    assert np.abs(one - other).mean() > 1


@pytest.mark.parametrize("removal", ["renormalised", "value-zeroed"])
@pytest.mark.parametrize("path", PLANTED)
def test_knockouts_find_the_edges(probes, image, path, removal):
    probe = probes[path]
    full = latents(probe.generate(image, "fox", **QUIET))
    used = set()
    for edge in EDGES:
        cut = [Knockout(*edge, removal=removal)]
        change = np.abs(latents(probe.generate(image, "fox", interventions=cut, **QUIET)) - full)
        assert change.mean() > 1 or change.max() <= 1, "all or nothing"
        used |= {edge} if change.mean() > 1 else set()
    assert used == PLANTED[path]


@pytest.mark.parametrize("path", PLANTED)
def test_whether_the_reference_still_matters_under_a_cut(probes, image, path):
    """The proof of a path: with it cut, another reference makes no other image."""
    cuts = {
        "direct": [Knockout("reference", "generation", blocks=1)],
        "text": [Knockout("reference", "text", blocks=0)],
        "head": [Knockout("reference", "generation", blocks=1, heads=1)],
    }[path]
    probe, other = probes[path], tiny.tiny_image(seed=5)
    first, second = (
        latents(probe.generate(each, "fox", interventions=cuts, **QUIET)) for each in (image, other)
    )
    assert np.abs(first - second).max() <= 1


@pytest.mark.filterwarnings("ignore:In some steps all tokens")
def test_flow_names_the_path(probes, image):
    found = {}
    for path, probe in probes.items():
        profiles = path_profiles(probe, image, "fox", **QUIET)
        found[path] = flow(*(each.sel(blocks="double") for each in profiles), rollout=True)
    np.testing.assert_allclose(found["direct"].direct_total, 0.5, atol=1e-4)  # one block of two
    np.testing.assert_allclose(found["head"].direct_total, 0.25, atol=1e-4)
    np.testing.assert_allclose(found["text"].mediated_total, 0.5, atol=1e-4)
    assert found["direct"].mediated_share < 1e-4
    assert found["text"].mediated_share > 1 - 1e-4
    for path, share in (("direct", 1), ("head", 1), ("text", 0)):
        whole, without = (float(each.sum("token")[0]) for each in found[path].rollout)
        assert without == pytest.approx(share * whole, abs=1e-4)
        assert whole > 0.1


class TestAttribution:
    def test_names_the_block(self, probes, image):
        for path, edge, block in (
            ("direct", ("reference", "generation"), 1),
            ("text", ("reference", "text"), 0),
            ("text", ("text", "generation"), 1),
            ("head", ("reference", "generation"), 1),
        ):
            found = attribution(probes[path], image, "fox", edge=edge, **QUIET)
            assert found.top() == [(block,)]
            others = found.data["distance"].drop_sel(block=block)
            assert float(found.data["distance"].sel(block=block)) > 0.1
            assert float(others.max()) < 1e-5

    def test_names_the_head(self, probes, image):
        found = attribution(
            probes["head"], image, "fox", lambda made: -float(np.mean(made)), over="head", **QUIET
        )
        assert found.top() == [(1, 1)]
        values = found.data["distance"].stack(site=("block", "head"))
        assert float(values.sel(block=1, head=1)) > 0.1
        assert float(np.sort(values)[-2]) < 1e-5
        assert int((found.data["effect"].values != 0).sum()) == 1

    def test_names_the_head_from_random_draws(self, probes, image):
        found = attribution(
            probes["head"], image, "fox", over="head", sample=16, share=0.3, **QUIET
        )
        assert found.top() == [(1, 1)]
        named = found.data.sel(block=1, head=1)
        assert float(named["distance"]) > 0.1
        assert float(found.data["runs"].sum()) == pytest.approx(16 * 10 * 0.3, rel=0.4)

    def test_the_head_reads_and_copies_nothing_by_place(self, probes, image):
        """Uniform over the reference: all of the mass, no information about the place."""
        profile = probes["head"].profile(image, "fox", **QUIET)
        found = copy_heads(profile.sel(blocks="double"))
        assert float(found.mass.sel(block=1, head=1)) == pytest.approx(1, abs=1e-4)
        assert float(found.mass.sum()) == pytest.approx(1, abs=1e-3)
        assert float(found.information.sel(block=1, head=1)) < 0.05
        assert found.heads == ()
