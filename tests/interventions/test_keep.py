"""Tokens that are named one by one."""

from __future__ import annotations

import numpy as np
import pytest

from recast_probe import rank
from recast_probe.errors import InputError
from recast_probe.interventions import Keep, Prune, WithoutReference

QUIET = {"steps": 3, "progress": False}


def pixels(result) -> np.ndarray:
    return np.asarray(result.image)


def test_named_tokens_stay_as_if_they_were_ranked_first(probe, image):
    ranking = rank.Ranking(np.array([9, 2, 5, *set(range(16)) - {2, 5, 9}]), "by hand")
    for start in (0, 2):
        kept = probe.generate(image, "fox", interventions=[Keep((5, 9, 2, 5), start)], **QUIET)
        pruned = probe.generate(image, "fox", interventions=[Prune(ranking, 3, start)], **QUIET)
        assert kept.reference_tokens_per_step == pruned.reference_tokens_per_step
        np.testing.assert_array_equal(pixels(kept), pixels(pruned))


def test_all_and_none(probe, plain, image):
    everything = probe.generate(image, "fox", interventions=[Keep(tuple(range(16)))], **QUIET)
    np.testing.assert_array_equal(pixels(everything), plain(image, "fox", steps=3))
    nothing = probe.generate(image, "fox", interventions=[Keep(())], **QUIET)
    without = probe.generate(image, "fox", interventions=[WithoutReference()], **QUIET)
    np.testing.assert_array_equal(pixels(nothing), pixels(without))


def test_settings_are_described(probe, image):
    keep = Keep(tuple(np.array([7, 3])), start=1)
    assert keep == Keep((3, 7), 1)
    assert keep.describe()["tokens"] == 2
    assert keep.describe()["sha256"] != Keep((3, 8), 1).describe()["sha256"]
    result = probe.generate(image, "fox", interventions=[keep], **QUIET)
    assert result.provenance["interventions"] == [keep.describe()]


def test_tokens_that_are_not_there(probe, image):
    for wrong in ((-1,), (1.5,), ((1, 2),), ("a",)):
        with pytest.raises(InputError, match="tokens must be"):
            Keep(wrong)
    with pytest.raises(InputError, match=r"16.*reference tokens 0-15"):
        probe.generate(image, "fox", interventions=[Keep((3, 16))], **QUIET)
    with pytest.raises(InputError, match="start=4 is outside"):
        probe.generate(image, "fox", interventions=[Keep((3,), start=4)], **QUIET)
