"""A ranking of your own, by the colour of the reference, beside the paper's."""

from __future__ import annotations

import numpy as np
import pytest

import recast_probe as rp
from recast_probe.testing import tiny

QUIET = {"steps": 3, "progress": False}


def by_redness(image, layout):
    """Reference tokens by how red their patch of the image is; the model is not asked."""
    grid = layout.references[0]
    small = image.convert("RGB").resize((grid.columns, grid.rows))
    red, green, blue = np.moveaxis(np.asarray(small, float), -1, 0)
    score = (red - (green + blue) / 2).reshape(-1)
    return rp.Ranking.from_score(score, "redness", {"resize": "bicubic"})


@pytest.fixture
def picture():
    """The second row of tokens is red."""
    pixels = np.asarray(tiny.tiny_image()).copy()
    pixels[16:32] = (255, 0, 0)
    from PIL import Image

    return Image.fromarray(pixels)


def test_pruning_by_it_keeps_the_reddest_tokens(probe, picture):
    ranking = by_redness(picture, probe.layout(picture))
    assert ranking.top(4).tolist() == [4, 5, 6, 7]
    prune = rp.Prune(ranking, 4, start=1)
    result = probe.generate(picture, "fox", interventions=[prune], profile=True, **QUIET)
    assert result.reference_tokens_per_step == (16, 4, 4)
    present = ~np.isnan(result.profile.dataset["score"].values[0, 1, 0, 0])
    assert np.flatnonzero(present).tolist() == [4, 5, 6, 7]
    facts = result.provenance["interventions"][0]["ranking"]
    assert facts["name"] == "redness"


def test_it_is_compared_with_the_papers_like_any_other(probe, picture):
    own = by_redness(picture, probe.layout(picture))
    profile = probe.profile(picture, "fox", profile_steps=0, **QUIET)
    paper = rp.rank.cross_image(profile, blocks="all")
    shared = set(own.top(4)) & set(paper.top(4))
    images = [
        probe.generate(picture, "fox", interventions=[rp.Prune(each, 4)], **QUIET).image
        for each in (own, paper)
    ]
    assert (np.asarray(images[0]) == np.asarray(images[1])).all() == (len(shared) == 4)


def test_scores_that_rank_nothing_are_refused(probe, picture):
    with pytest.raises(rp.InputError, match="'broken' has scores that are not finite"):
        rp.Ranking.from_score(np.full(16, np.nan), "broken", {})
    ranking = rp.Ranking(np.arange(9), "of another reference")
    with pytest.raises(rp.InputError, match="orders 9 reference tokens, but this run has 16"):
        probe.generate(picture, "fox", interventions=[rp.Prune(ranking, 4)], **QUIET)
