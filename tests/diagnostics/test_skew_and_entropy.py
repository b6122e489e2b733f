"""Two readings of skew, four entropies: planted values, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_probe.diagnostics import entropy, mutual_information, skew
from recast_probe.diagnostics.skew import top_words
from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.testing.planted_profiles import planted

PAIR = (Grid(1, 4),)


def test_blocks_that_prefer_different_tokens_are_skewed_each_but_not_together():
    blocks = np.array([[[4.0, 0, 0, 0]], [[0, 4.0, 0, 0]], [[0, 0, 4.0, 0]], [[0, 0, 0, 4.0]]])
    found = skew(planted(blocks, PAIR))
    assert found.top_share_of_mean_score == 0.25
    assert found.mean_of_block_top_shares == 1
    assert found.gini_of_mean_score == 0
    assert found.mean_of_block_ginis == 0.75
    assert found.block_top_shares.dims == ("step", "block")
    assert found.block_top_shares.values.tolist() == [[1, 1, 1, 1]]
    np.testing.assert_allclose(found.lorenz, [0, 0.25, 0.5, 0.75, 1])
    json.dumps(found.summary(), allow_nan=False)
    assert "top 25 % hold 25.0%" in repr(found)
    assert "<table>" in found._repr_html_()


def test_selection_decides_what_is_averaged():
    scores = np.zeros((2, 3, 2, 4))
    scores[..., 0] = 1
    scores[1, 2, 1] = [0, 1, 1, 0]
    profile = planted(scores, PAIR)
    assert skew(profile.sel(steps=0)).top_share_of_mean_score == 1
    assert skew(profile.sel(blocks=2, steps=1, heads=1)).top_share_of_mean_score == 0.5
    assert "block 2" in skew(profile, blocks=2).selection.replace("blocks", "block")


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1))
def test_the_mean_of_blocks_is_at_least_as_skewed_as_their_mean(seed, fraction):
    scores = np.random.default_rng(seed).dirichlet(np.full(16, 0.3), size=(2, 3, 1))
    found = skew(planted(scores), fraction)
    assert found.mean_of_block_top_shares >= found.top_share_of_mean_score - 1e-9


@pytest.mark.parametrize(
    ("tokens", "top", "words"),
    [
        (256, 64, "top 25 %"),
        (4096, 1024, "top 25 %"),
        (10, 3, "top 30 % (3 of 10 tokens)"),
        (130, 33, "top 25.4 % (33 of 130 tokens)"),
        (242, 61, "top 25.2 % (61 of 242 tokens)"),
        (1, 1, "top 100 % (1 of 1 tokens)"),
    ],
)
def test_the_top_quarter_says_what_it_really_counts(tokens, top, words):
    """Even scores hold exactly the share that is counted."""
    assert top_words(tokens) == words
    found = skew(planted(np.ones(tokens), (Grid(1, tokens),)))
    assert (found.top_tokens, found.tokens) == (top, tokens)
    assert found.top_share_of_mean_score == pytest.approx(top / tokens)
    assert found.summary()["counted_fraction"] == found.counted == top / tokens
    assert words in repr(found)
    assert top_words(tokens, 1.0) == "top 100 %"


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, math.nan])
def test_fractions_outside_their_range(fraction):
    with pytest.raises(InputError, match="fraction must lie above 0"):
        skew(planted(np.ones(16)), fraction)


@pytest.mark.parametrize(
    ("value", "message"),
    [(math.nan, "tokens were pruned"), (-0.1, "cannot be negative"), (math.inf, "infinite")],
)
@pytest.mark.parametrize("diagnose", [skew, entropy])
def test_scores_that_cannot_be(diagnose, value, message):
    scores = np.ones((2, 1, 1, 16))
    scores[1, 0, 0, 5] = value
    with pytest.raises(InputError, match=message):
        diagnose(planted(scores))
    diagnose(planted(scores).sel(steps=0))


@pytest.mark.parametrize("diagnose", [skew, entropy])
def test_a_block_without_attention_is_nan_with_a_warning(diagnose):
    scores = np.ones((1, 2, 1, 16))
    scores[0, 1] = 0
    with pytest.warns(UserWarning, match="NaN"):
        found = diagnose(planted(scores))
    assert np.isnan(list(found.summary().values())).any()


def test_entropies_of_planted_scores():
    uniform, one, half = np.full(4, 0.25), np.eye(4)[0], np.array([0.5, 0.5, 0, 0])
    scores = np.array([[[uniform, uniform]], [[one, half]], [[np.eye(4)[0], np.eye(4)[1]]]])
    conditional = np.array([[[2.0, 1.0]], [[0, 1.0]], [[0, 0]]])
    found = entropy(planted(scores, PAIR, conditional))
    assert found.maximum == 2
    mixed = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    np.testing.assert_allclose(found.marginal, [2, mixed, 1])
    np.testing.assert_allclose(found.conditional, [1.5, 0.5, 0])
    # per head: marginal minus conditional, then the mean over heads
    np.testing.assert_allclose(found.mutual_information, [0.5, 0, 0], atol=1e-12)
    np.testing.assert_allclose(found.effective_tokens, [4, 2**mixed, 2])
    np.testing.assert_allclose(found.block_marginal[:, 0], found.marginal)
    np.testing.assert_allclose(found.block_conditional[:, 0], found.conditional)
    assert found.summary()["last"] == pytest.approx(1)
    assert found.marginal.dims == ("step",)
    assert "sigma" in found.marginal.coords


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_information_of_equal_masses_is_never_negative(seed, queries):
    """Rows of equal mass: the marginal is their mean, and entropy is concave."""
    rows = np.random.default_rng(seed).dirichlet(np.full(16, 0.5), size=queries)
    terms = np.where(rows > 0, rows * np.log2(np.maximum(rows, 1e-300)), 0)
    conditional = -terms.sum(-1).mean()
    found = entropy(planted(rows.mean(0), conditional=[[[conditional]]]))
    information = float(found.mutual_information[0])
    assert -1e-5 <= information <= math.log2(queries) + 1e-5


def test_information_of_pruned_steps_is_refused():
    score = np.full((2, 16), 1 / 48)[:, None, None]
    score[1, ..., :4] = np.nan
    profile = planted(score)
    assert mutual_information(profile.sel(steps=[0])).notnull().all()
    with pytest.raises(InputError, match="pruned in those steps"):
        mutual_information(profile)
