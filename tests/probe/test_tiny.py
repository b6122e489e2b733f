"""Tiny pipelines by name: one a family, the same every time, and ready for a profile."""

from __future__ import annotations

import json
from functools import cache

import pytest

import recast_probe as rp
from recast_probe.errors import InputError
from recast_probe.pipelines import FAMILIES
from recast_probe.testing import conformance, tiny
from recast_probe.testing.tiny_pipelines import TINY


@cache
def cases():
    """Of the conformance suite, by the names of the families."""
    return {case.probe.family.name: case for case in conformance.supported_cases()}


def test_every_family_has_one_and_a_case():
    names = {family.name for family in FAMILIES}
    assert set(TINY) == names, "testing/tiny_pipelines.py"
    assert set(cases()) == names, "testing/conformance/supported.py"


@pytest.mark.parametrize("name", TINY)
def test_a_profile_of_two_steps(name, tmp_path):
    probe, case = rp.Probe.tiny(name), cases()[name]
    assert probe.family.name == name
    assert probe.fingerprint == case.probe.fingerprint  # built apart
    call = {"steps": 2, "seed": 1, "progress": False, **case.settings}
    found = probe.generate(tiny.tiny_image(), case.prompt, profile=True, **call)
    (profile,) = found.profiles
    assert profile.score.sizes["step"] == 2
    assert profile.score.sizes["block"] == len(probe.block_kinds)
    assert profile.provenance["model"]["name"] == f"tiny:{name}"
    (file,) = found.save(tmp_path / "image.png")
    assert f"tiny:{name}" in json.dumps(json.loads(file.with_suffix(".json").read_text()))


def test_another_name_lists_all():
    with pytest.raises(InputError, match="'nope'") as refusal:
        rp.Probe.tiny("nope")
    for name in TINY:
        assert name in str(refusal.value)


@pytest.mark.parametrize("name", ["flux2", "qwen-image-edit", "flux-ip-adapter"])
def test_rankings_without_naming_blocks(name):
    """The paper's blocks of a model with single-stream blocks, and all blocks of one without."""
    probe = rp.Probe.tiny(name)
    used = "paper (3-4)" if name == "flux2" else f"all (0-{len(probe.block_kinds) - 1})"
    call = {"steps": 2, "seed": 1, "progress": False, **cases()[name].settings}
    profile = probe.profile(tiny.tiny_image(), "fox", **call)
    ranking = rp.rank.cross_image(profile)
    assert ranking.details["selection"] == f"blocks {used}, step 0, all heads"
    recast = probe.recast(tiny.tiny_image(), "fox", budget=2, **call)
    assert recast.ranking.details == ranking.details
    assert recast.ranking.order.tolist() == ranking.order.tolist()
    if name != "flux-ip-adapter":  # an adapter's tokens have no hidden states
        call["interventions"] = [rp.Recast(2, ranking="cosine")]
        cosine = probe.generate(tiny.tiny_image(), "fox", **call).ranking
        assert cosine.details["blocks"] == used
        call["interventions"] = [rp.interventions.Similarity()]
        by_block = probe.generate(tiny.tiny_image(), "fox", **call).similarity[0]
        assert by_block.shape[1] == (2 if name == "flux2" else 3)
        assert rp.rank.cosine(by_block[0]).order.tolist() == cosine.order.tolist()
