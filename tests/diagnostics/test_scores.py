"""What diagnostics are given: a part of a profile, or an array of its scores."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from recast_probe.diagnostics import (
    arrays,
    copy_heads,
    entropy,
    mutual_information,
    overlap,
    reading,
    skew,
    stability,
    stability_over,
    survey,
)
from recast_probe.errors import InputError
from recast_probe.testing.planted_profiles import planted

MASK = np.zeros((4, 4), bool)
MASK[1:3, :2] = True


def profile(seed: int = 0):
    rng = np.random.default_rng(seed)
    return planted(
        rng.dirichlet(np.full(16, 0.5), size=(3, 4, 2)),
        conditional=rng.random((3, 4, 2)),
        blocks=[0, 2, 3, 5],
    )


def test_a_part_gives_the_numbers_of_the_formulas_to_the_last_bit():
    whole = profile()
    steps, blocks, heads = [0, 2], [1, 2, 3], [1]  # places in the array
    raw = whole.dataset["score"].values[0][steps][:, blocks][:, :, heads]
    part = whole.sel(blocks="single", steps=steps, heads=1)
    text = "blocks single (2-3, 5), steps 0, 2, head 1"

    found = skew(part)
    assert found.top_share_of_mean_score == arrays.top_share(raw.mean((0, 1, 2), float), 0.25)
    assert found.mean_of_block_ginis == arrays.gini(raw[:, :, 0]).mean()
    np.testing.assert_array_equal(found.block_top_shares, arrays.top_share(raw[:, :, 0], 0.25))
    assert found.block_top_shares["block"].values.tolist() == [2, 3, 5]
    bits = entropy(part)
    np.testing.assert_array_equal(bits.block_marginal, arrays.entropy_bits(raw[:, :, 0]))
    conditional = whole.dataset["conditional_entropy"].values[0][steps][:, blocks][:, :, heads]
    np.testing.assert_array_equal(bits.conditional, conditional.mean((1, 2), float))
    each = arrays.entropy_bits(raw) - conditional.astype(float)
    np.testing.assert_array_equal(mutual_information(part), each)
    np.testing.assert_array_equal(reading(part)["gini"], arrays.gini(raw).mean(0))
    np.testing.assert_array_equal(copy_heads(part).information, each.mean(0))
    held = overlap(part, MASK)
    assert held.auroc == arrays.auroc(raw.mean((0, 1, 2), float), MASK.ravel())
    np.testing.assert_array_equal(held.score, raw.mean((0, 1, 2), float))
    between = stability_over(part, "block").spearman
    np.testing.assert_array_equal(between, arrays.spearman_matrix(raw.mean((0, 2), float)))
    assert {skew(part).selection, bits.selection, held.selection} == {text}
    assert skew(whole.sel(steps=steps, heads=1), blocks="single").summary() == found.summary()


def test_an_array_of_scores_gives_what_its_profile_gives():
    many = [profile(seed) for seed in range(3)]
    plain = [each.score for each in many]
    assert skew(plain[0]).summary() == skew(many[0]).summary()
    assert overlap(plain[0], MASK).summary() == overlap(many[0], MASK).summary()
    np.testing.assert_array_equal(entropy(plain[0]).marginal, entropy(many[0]).marginal)
    assert np.isnan(entropy(plain[0]).conditional).all(), "an array does not tell"
    assert stability(plain).summary() == stability(many).summary()
    assert survey(plain).summary() == survey(many).summary()
    assert stability_over(plain[0], "head").summary() == stability_over(many[0], "head").summary()
    assert skew(plain[0]).selection == "blocks 0, 2-3, 5, steps 0-2, heads 0-1"
    assert skew(plain[0].sel(block=3)).block_top_shares["block"].values.tolist() == [3]


def test_dimensions_that_an_array_lacks_have_the_size_1():
    score = np.random.default_rng(0).random((3, 16))
    by_block = xr.DataArray(score, dims=("block", "token"))
    found = skew(by_block)
    np.testing.assert_array_equal(found.block_top_shares, arrays.top_share(score, 0.25)[None])
    assert found.selection == "3 blocks"
    turned = skew(by_block.transpose("token", "block"))
    np.testing.assert_array_equal(turned.block_top_shares, found.block_top_shares)
    alone = xr.DataArray(score[0], dims="token")
    assert skew(alone).selection == "scores of 16 tokens"
    assert overlap(alone, MASK).auroc == arrays.auroc(score[0], MASK.ravel())


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.ones(16), "not ndarray"),
        (xr.DataArray(np.ones(3), dims="block"), "dimension token"),
        (xr.DataArray(np.ones((2, 3)), dims=("prompt", "token")), "prompt"),
        (xr.DataArray(np.ones((0, 3)), dims=("block", "token")), r"\(1, 0, 1, 3\)"),
        (xr.DataArray([1.0, np.nan], dims="token"), "NaN"),
        (xr.DataArray([1.0, -1.0], dims="token"), "negative"),
    ],
)
@pytest.mark.parametrize("diagnose", [skew, entropy, lambda scores: stability([scores] * 2)])
def test_what_is_no_array_of_scores(diagnose, scores, message):
    with pytest.raises(InputError, match=message):
        diagnose(scores)


def test_choices_that_an_array_does_not_offer():
    score = profile().score
    with pytest.raises(InputError, match=r"scores\.sel"):
        skew(score, blocks="single")
    with pytest.raises(InputError, match=r"\(16,\).*16 tokens"):
        overlap(score, MASK.ravel())
    with pytest.raises(InputError, match="different reference grids"):
        stability([score, score.isel(token=slice(4))])
