"""A survey says of many profiles what skew, entropy and stability say, and holds one at a time."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from recast_probe.diagnostics import arrays, entropy, skew, stability, survey
from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.testing.planted_profiles import planted


def profiles(count: int, heads: int = 2) -> list:
    rng = np.random.default_rng(0)
    shared = rng.gamma(1.0, size=16)
    return [planted(shared * rng.gamma(2.0, size=(3, 4, heads, 16))) for _ in range(count)]


@pytest.mark.parametrize("heads", [1, 2])
def test_it_says_what_the_single_diagnostics_say(heads):
    many = [profile.sel(blocks=[1, 3], steps=[0, 2]) for profile in profiles(5, heads)]
    found = survey(iter(many), fraction=0.25)
    for index, profile in enumerate(many):
        one, bits = skew(profile, 0.25), entropy(profile)
        here = {"profile": str(index)}
        np.testing.assert_allclose(found.top_share.sel(here), one.block_top_shares, rtol=1e-12)
        np.testing.assert_allclose(found.marginal.sel(here), bits.block_marginal, rtol=1e-12)
        mean = found.mean_top_share.sel(here)
        assert float(mean) == pytest.approx(one.top_share_of_mean_score)
        assert float(found.mean_gini.sel(here)) == pytest.approx(one.gini_of_mean_score)
        assert float(found.gini.sel(here).mean()) == pytest.approx(one.mean_of_block_ginis)
    together = stability(many, fraction=0.25)
    np.testing.assert_allclose(found.stability.spearman, together.spearman, atol=1e-12)
    np.testing.assert_allclose(found.stability.kendall, together.kendall, atol=1e-12)
    for block in (1, 3):
        alone = stability([profile.sel(blocks=block) for profile in many]).mean_spearman.mean
        assert float(found.block_spearman.sel(block=block)) == pytest.approx(alone)
    assert found.selection == together.selection
    assert found.summary()["profiles"] == 5
    assert "5 profiles" in repr(found)
    assert found.top_share.dims == ("profile", "step", "block")
    assert found.top_share["block"].values.tolist() == [1, 3]


def test_only_one_profile_is_held():
    alive: list[weakref.ref] = []

    def one_by_one():
        for profile in profiles(4):
            fresh = planted(profile.score.values)
            alive.append(weakref.ref(fresh.dataset["score"].data))
            yield fresh
            del fresh
            gc.collect()
            # the consumer's own name for the last one may still stand
            assert sum(each() is not None for each in alive) <= 1

    survey(one_by_one())


def test_what_cannot_be_surveyed():
    with pytest.raises(InputError, match="at least 2 profiles, got 1"):
        survey(profiles(1))
    with pytest.raises(InputError, match="2 profiles need as many labels, got 1"):
        survey(profiles(2), ["a"])
    with pytest.raises(InputError, match="different reference grids"):
        survey([planted(np.ones(16)), planted(np.ones(16), grids=(Grid(2, 8),))])
    with pytest.raises(InputError, match="different things"):
        survey([planted(np.ones((2, 1, 16))), planted(np.ones((1, 1, 16)), blocks=[1])])


def test_rows_taken_in_parts_are_the_rows(monkeypatch):
    score = np.random.default_rng(1).gamma(0.4, size=(3, 5, 33)).astype(np.float32)
    whole = [arrays.top_share(score, 0.25), arrays.gini(score), arrays.entropy_bits(score)]
    monkeypatch.setattr(arrays, "CACHED_NUMBERS", 40)
    parts = [arrays.top_share(score, 0.25), arrays.gini(score), arrays.entropy_bits(score)]
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)
