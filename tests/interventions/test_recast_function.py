"""A ranking of your own, made inside the run from what one step shows."""

from __future__ import annotations

import numpy as np
import pytest

import recast_probe as rp
from recast_probe.errors import InputError

QUIET = {"steps": 3, "progress": False}


def least_seen(profile, blocks, steps):
    """The tokens that get the least attention first: a control."""
    score = -profile.sel(blocks=blocks, steps=steps).mean_score().values
    return rp.Ranking.from_score(score, "least seen", {})


@pytest.mark.parametrize("attachment", ["nnsight", "hooks"])
def test_a_function_ranks_the_tokens(probe, image, attachment):
    def made(ranking, **settings):
        recast = rp.Recast(4, blocks="all", ranking=ranking, **settings)
        return probe.generate(image, "fox", interventions=[recast], attachment=attachment, **QUIET)

    own, named = made(rp.rank.cross_image), made("cross-image")
    np.testing.assert_array_equal(own.image, named.image)
    np.testing.assert_array_equal(own.ranking.order, named.ranking.order)
    least = made(least_seen)
    assert least.ranking.name == "least seen"
    assert least.reference_tokens_per_step == (16, 4, 4)
    worst = made("cross-image", worst_first=True)
    np.testing.assert_array_equal(least.ranking.top(4), worst.ranking.top(4))
    facts = [each.provenance["interventions"][0]["ranking"] for each in (own, least)]
    assert facts[0] != facts[1]
    assert "least_seen" in str(facts[1])


def test_what_is_no_ranking_is_refused(probe, image):
    for wrong in (lambda *_, **__: [1, 2], lambda *_, **__: rp.Ranking(np.arange(9), "short")):
        with pytest.raises(InputError, match="a Ranking of 16 reference tokens is needed"):
            probe.recast(image, "fox", budget=4, ranking=wrong, **QUIET)
    with pytest.raises(InputError, match="or a function, not 'best'"):
        rp.Recast(4, ranking="best")
