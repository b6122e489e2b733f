"""Paired comparisons: by hand, as scipy has them, and with the coverage they promise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from recast_probe.errors import InputError
from recast_probe.studies import compare, holm, means, retention
from recast_probe.studies.limits import limits_of
from recast_probe.studies.resampling import bootstrap, bootstrap_ratio, sign_flip_p_value
from recast_probe.studies.tables import row_interval


def tidy(values: dict[str, list[list[float]]]) -> pd.DataFrame:
    """Values by arm, subject and prompt as one row a run."""
    return pd.DataFrame(
        [
            {"subject": f"s{s}", "prompt": f"p{p}", "arm": arm, "identity": value}
            for arm, subjects in values.items()
            for s, prompts in enumerate(subjects)
            for p, value in enumerate(prompts)
        ]
    )


TABLE = tidy(
    {
        "full": [[0.8, 0.6], [0.9, 0.7], [0.5, 0.5]],
        "pruned": [[0.6, 0.6], [0.8, 0.5], [0.2, 0.6]],
        "none": [[0.0, 0.1], [0.1, 0.0], [0.2, 0.2]],
    }
)


def test_a_comparison_by_hand():
    found = compare(TABLE, "identity", "full").loc["pruned"]
    differences = np.array([[-0.2, 0], [-0.1, -0.2], [-0.3, 0.1]])
    assert found["difference"] == pytest.approx(differences.mean())
    assert found["share_above"] == pytest.approx((1 + 0.5) / 6)
    subject = differences.mean(1)
    assert found["effect_size"] == pytest.approx(subject.mean() / subject.std(ddof=1))
    # all three subjects fall, so only 2 of 8 sign patterns are as extreme
    assert found["p_value"] == pytest.approx(2 / 8)
    assert (found["subjects"], found["pairs"]) == (3, 6)
    assert found["low"] < found["difference"] < found["high"] <= 0
    assert compare(TABLE, "identity", "full")["p_holm"].tolist() == [0.5, 0.5]


def test_means_and_retention_by_hand():
    found = means(TABLE, "identity")
    assert found.index.tolist() == ["full", "pruned", "none"]
    assert found["mean"].tolist() == pytest.approx([4 / 6, 3.3 / 6, 0.1])
    kept = retention(TABLE, "identity")
    assert kept["retention"].tolist() == pytest.approx([3.3 / 4, 0.6 / 4])
    assert (kept["low"] <= kept["retention"]).all()
    assert (kept["retention"] <= kept["high"]).all()


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]).tolist() == [1, 1]
    found = holm([math.nan, 0.02])
    assert math.isnan(found[0])
    assert found[1] == 0.02


def test_the_percentile_interval_is_scipys():
    values = np.random.default_rng(0).gamma(2, size=25)
    ours = bootstrap([np.array([v]) for v in values], draws=40_000, seed=1, method="percentile")
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method="percentile", rng=2
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.02 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.02 * width)
    with pytest.raises(InputError, match="not 'normal'"):
        bootstrap([np.ones(2)], method="normal")


def test_the_sign_flip_test_is_scipys():
    rng = np.random.default_rng(3)
    values = rng.normal(0.3, 1, 9)
    wanted = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert sign_flip_p_value([np.array([v]) for v in values]) == pytest.approx(wanted.pvalue)
    # by hand, in whole subjects
    groups = [np.array([0.5, 0.1]), np.array([0.2]), np.array([-0.1, -0.1, 0.1])]
    sums = [0.6, 0.2, -0.1]
    flips = [abs(np.dot(sums, signs)) for signs in itertools.product((1, -1), repeat=3)]
    assert sign_flip_p_value(groups) == pytest.approx(np.mean(np.array(flips) >= 0.7 - 1e-12))


STUDIES = 1000


def draw(kind: str, rng: np.random.Generator, subjects: int) -> np.ndarray:
    """One study with a true mean of 0: values (subject, prompt) that share their subject's own."""
    shape = (subjects, 3)
    if kind == "subjects and prompts differ":
        return rng.normal(0, 1, (subjects, 1)) + rng.normal(0, 1, shape)
    if kind == "subjects differ":
        return rng.normal(0, 1, (subjects, 1)) + rng.normal(0, 0.2, shape)
    if kind == "prompts differ":
        return rng.normal(0, 0.1, (subjects, 1)) + rng.normal(0, 1, shape)
    if kind == "bounded":
        return rng.beta(1, 4, (subjects, 1)) - 0.2 + rng.uniform(-0.1, 0.1, shape)
    return rng.exponential(1, (subjects, 1)) - 1 + rng.normal(0, 1, shape)


@pytest.mark.parametrize(
    ("kind", "subjects"),
    [
        ("subjects and prompts differ", 5),
        ("subjects and prompts differ", 10),
        ("subjects and prompts differ", 40),
        ("subjects and prompts differ", 100),
        ("subjects differ", 5),
        ("subjects differ", 40),
        ("prompts differ", 5),
        ("prompts differ", 40),
        ("bounded", 10),
        ("bounded", 40),
        # long tails need more subjects
        ("long tail", 60),
    ],
)
def test_intervals_cover_the_truth_as_often_as_they_say(kind, subjects):
    rng = np.random.default_rng(4)
    covered = []
    for study in range(STUDIES):
        found = bootstrap(list(0.7 + draw(kind, rng, subjects)), draws=300, seed=study)
        if not found.cannot_tell:
            covered.append(found.low <= 0.7 <= found.high)
    assert len(covered) >= 0.85 * STUDIES
    assert 0.93 <= np.mean(covered) <= 0.985


@pytest.mark.parametrize("subjects", [2, 3, 4])
def test_the_fewest_subjects_are_covered_too(subjects):
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(STUDIES):
        found = bootstrap(list(draw("subjects and prompts differ", rng, subjects)))
        covered.append(found.low <= 0 <= found.high)
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.parametrize("subjects", [10, 40])
def test_paired_differences_are_covered(subjects):
    """Two arms that share subject and prompt; whole tables, as `compare` gets them."""
    rng = np.random.default_rng(6)
    covered = []
    for study in range(STUDIES):
        base = draw("subjects and prompts differ", rng, subjects)
        other = base - 0.3 + 0.5 * draw("subjects and prompts differ", rng, subjects)
        found = bootstrap(list(other - base), draws=300, seed=study)
        covered.append(found.low <= -0.3 <= found.high)
    assert 0.93 <= np.mean(covered) <= 0.98
    table = tidy({"a": base.tolist(), "b": other.tolist()})
    found = compare(table, "identity", "a", seed=7, within=None)
    wanted = bootstrap(list(other - base), seed=7)
    # tables sort subjects by name, so the draws differ, and the interval hardly does
    assert found.loc["b", "low"] == pytest.approx(wanted.low, abs=0.03)
    assert found.loc["b", "high"] == pytest.approx(wanted.high, abs=0.03)


@pytest.mark.parametrize("subjects", [10, 40])
def test_retention_is_covered(subjects):
    """A ratio of means, of prompts that differ in number from subject to subject."""
    rng = np.random.default_rng(8)
    sizes = rng.integers(1, 5, subjects)
    covered = []
    for study in range(STUDIES):
        full = [0.6 + rng.normal(0, 0.1) + rng.normal(0, 0.1, size) for size in sizes]
        pruned = [0.9 * values + rng.normal(0, 0.05, values.shape) for values in full]
        found = bootstrap_ratio(pruned, full, draws=300, seed=study)
        covered.append(found.low <= 0.9 <= found.high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_the_studentized_interval_draw_by_draw():
    """The same draws in a loop, with the textbook's standard error of the mean."""
    values = np.random.default_rng(9).gamma(2, size=12)
    mean, count = values.mean(), len(values)
    error = stats.sem(values)
    picks = np.random.default_rng(3).integers(count, size=(500, count))
    ratios = [(values[p].mean() - mean) / stats.sem(values[p]) for p in picks]
    low, high = np.quantile(ratios, [0.025, 0.975])
    found = bootstrap([np.array([v]) for v in values], draws=500, seed=3)
    student = stats.t.interval(0.95, 11, mean, error)
    assert found.mean == pytest.approx(mean)
    assert found.low == pytest.approx(min(mean - high * error, student[0]))
    assert found.high == pytest.approx(max(mean - low * error, student[1]))
    few = bootstrap([np.array([v]) for v in values[:4]])
    wanted = stats.t.interval(0.95, 3, values[:4].mean(), stats.sem(values[:4]))
    assert (few.low, few.high) == pytest.approx(wanted)
    even = bootstrap([np.array([0.1, 0.1]), np.array([0.1])] * 3)
    assert even.mean == pytest.approx(0.1)
    assert even.cannot_tell
    even = bootstrap([np.array([0.1, 0.1]), np.array([0.1])] * 6)
    assert even.low == even.high == even.mean == pytest.approx(0.1)


def test_treating_prompts_as_independent_would_not_cover():
    rng = np.random.default_rng(5)
    covered = []
    for study in range(200):
        values = rng.normal(0, 1, (40, 1)) + rng.normal(0, 0.3, (40, 3))
        found = bootstrap(list(values.reshape(-1, 1)), draws=300, seed=study)
        covered.append(found.low <= 0 <= found.high)
    assert np.mean(covered) < 0.85


def test_subjects_may_have_different_numbers_of_prompts():
    groups = [np.array([1.0, 1, 1, 1]), np.array([0.0])]
    # the standard error of a ratio of sums, by hand: 0.8 of 4 and of 1
    error = math.sqrt(2 / 1 * ((4 - 3.2) ** 2 + (0 - 0.8) ** 2)) / 5
    found = bootstrap(groups)
    assert found.mean == 0.8
    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, 1) * error)
    ratio = bootstrap_ratio([g * 2 for g in groups[:1]] * 12, groups[:1] * 12)
    assert (ratio.mean, ratio.low, ratio.high) == (2, 2, 2)


def test_the_sign_flip_test_keeps_its_level():
    rng = np.random.default_rng(6)
    p_values = [
        sign_flip_p_value(list(rng.normal(0, 1, (12, 1)) + rng.normal(0, 1, (12, 3))), draws=400)
        for _ in range(400)
    ]
    assert 0.025 <= np.mean(np.array(p_values) <= 0.05) <= 0.08


def test_the_same_seed_gives_the_same_numbers():
    many = np.random.default_rng(10).beta(1, 9, (2, 12, 2)).tolist()  # too few are not drawn
    table = tidy({"full": many[0], "pruned": many[1]})
    first, again, other = (compare(table, "identity", "full", seed=s) for s in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare(TABLE.iloc[1:], "identity", "full"), "1 runs are missing.*'s0'"),
        (lambda: compare(pd.concat([TABLE, TABLE]), "identity", "full"), "there twice"),
        (lambda: compare(TABLE, "identity", "best"), "'best' cannot be compared"),
        (lambda: compare(TABLE, "colour", "full"), "lacks colour"),
        (lambda: means(TABLE.iloc[:0], "identity"), "lacks rows"),
        (
            lambda: means(TABLE.replace({"subject": {"s0": None}}), "identity"),
            "of subject are miss",
        ),
        (lambda: means(TABLE.replace({"arm": {"full": None}}), "identity"), "of arm are missing"),
        (lambda: retention(TABLE, "identity", "all"), "no arm 'all'"),
        (lambda: bootstrap([]), "at least one subject"),
        (lambda: bootstrap([np.array([np.nan])]), "not finite"),
        (lambda: bootstrap([np.ones(2)], confidence=2), "between 0 and 1"),
        (lambda: bootstrap_ratio([np.ones(2)], [np.zeros(2)]), "no ratio"),
        (lambda: bootstrap_ratio([np.ones(2)], [np.ones(3)]), "as many values"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_means_end_where_scores_do():
    """A cosine is not above 1, nor a share below 0; other columns have no limits."""
    table = tidy({"full": [[1.0], [0.98], [0.99], [0.6]], "none": [[0.1], [0.0], [0.02], [0.01]]})
    found = means(table, "identity")
    assert found["method"].tolist() == ["bounded t"] * 2
    assert found.loc["full", "high"] <= 1
    assert means(table.rename(columns={"identity": "colour"}), "colour").loc["none", "low"] >= 0
    free = means(table.rename(columns={"identity": "own"}), "own")
    assert free.loc["full", "high"] > 1
    pd.testing.assert_frame_equal(means(table, "identity", within=None), free)
    with pytest.raises(InputError, match=r"0\.6 to 1 do not lie within 0 and 0\.5"):
        means(table, "identity", within=(0, 0.5))
    assert (limits_of("identity_to_target"), limits_of("seconds")) == ((-1, 1), None)
    assert (limits_of("top25_of_blocks"), limits_of("colour_distance")) == ((0, 1), None)
    assert limits_of("insertion area") == limits_of("deletion area") == (-1, 1)
    words = [row_interval(row) for _, row in found.iterrows()]
    assert all(each.endswith(", n=4]") for each in words)


def test_equal_differences_have_no_effect_size():
    rows = [
        {"subject": str(i), "prompt": 0, "arm": arm, "identity": value + 0.07 * i}
        for i in range(3)
        for arm, value in (("full", 0.8), ("none", 0.2))
    ]
    found = compare(pd.DataFrame(rows), "identity", "full")
    assert found["difference"].item() == pytest.approx(-0.6)
    assert np.isnan(found["effect_size"].item())


def test_draws_without_a_ratio_are_left_out():
    above, below = (
        [np.array([v]) for v in each] for each in ([1, 2, 1, 2, 1, 1], [1, -1, 2, 2, 1, 2])
    )
    with np.errstate(all="raise"):
        assert np.isfinite(bootstrap_ratio(above, below).mean)


def test_a_single_subject_has_no_interval():
    one = TABLE[TABLE["subject"] == "s0"]
    found = compare(one, "identity", "full").loc["pruned"]
    assert found["difference"] == pytest.approx(-0.1)
    assert np.isnan([found["low"], found["p_value"], found["effect_size"]]).all()
