"""Agreement within one kind of edit and between two; intervals that stay inside the possible."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from recast_probe import pocket
from recast_probe.demo.agreement import TINTS, by_kind, paint_prompts
from recast_probe.demo.arms import ARMS
from recast_probe.demo.measure import SCORES, mean_of
from recast_probe.demo.pages import _gain
from recast_probe.demo.words import in_words
from recast_probe.studies.reference_gain import UNDEFINED


def test_pairs_are_told_apart_by_the_kinds_of_their_prompts():
    kinds = ["a", "a", "b", "b"]
    values = np.where(np.equal.outer(kinds, kinds), 0.9, -0.3)
    found = by_kind(values, kinds)
    assert found["same_kind"] == pytest.approx(0.9)
    assert found["other_kind"] == pytest.approx(-0.3)
    assert found["all_pairs"] == pytest.approx((2 * 0.9 - 4 * 0.3) / 6)


def test_agreement_of_one_kind_alone_hides_what_two_would_show():
    """More prompts of one kind raise the agreement of the mix, and nothing else."""
    mixes = [["a"] * count + ["b"] for count in (1, 2, 4, 8)]
    found = [by_kind(np.where(np.equal.outer(m, m), 0.9, -0.3), m)["all_pairs"] for m in mixes]
    assert found == sorted(found)
    assert found[0] == pytest.approx(-0.3)


@pytest.mark.parametrize(("kinds", "lacking"), [(["a", "a"], "other_kind"), ("ab", "same_kind")])
def test_pairs_that_there_are_none_of_are_not_defined(kinds, lacking):
    assert np.isnan(by_kind(np.full((2, 2), 0.5), list(kinds))[lacking])


def test_the_second_kind_of_prompt_names_the_sample_and_a_tint():
    for sample in pocket.samples():
        prompts = paint_prompts(sample)
        assert len(prompts) == len(TINTS) == len(set(prompts))
        assert all(sample.subject in prompt for prompt in prompts)
        assert not set(prompts) & set(sample.prompts)


@pytest.mark.parametrize("score", SCORES)
def test_intervals_of_scores_stay_inside_the_possible(score):
    """Four references of which one failed, as in the demo's own size."""
    values = [0.99, 0.98, 0.02, 0.995]
    found = SimpleNamespace(
        references=["a", "b", "c", "d"], scores={arm: {score: values} for arm in ARMS}
    )
    interval = mean_of(found, score, "full")  # type: ignore[arg-type]
    least = 0 if score == "colour" else -1
    assert interval.count == 4
    assert interval.method
    assert least <= interval.low <= interval.mean <= interval.high <= 1 or interval.cannot_tell


def test_words_of_numbers_that_cannot_be_told():
    known = {"mean": 0.5, "low": 0.4, "high": 0.6, "count": 4}
    assert in_words(known) == "0.500 [0.400, 0.600, n=4]"
    assert in_words(known | {"low": None, "high": None}) == "0.500 [cannot tell, n=4]"
    assert in_words(known | {"mean": None}) == in_words(None) == "not defined"
    assert _gain({"recast": known, "random": known}, "full") == "1"
    assert _gain({"recast": known, "random": known}, "none") == "0"
    assert _gain({"recast": known | {"mean": None}}, "recast") == UNDEFINED
