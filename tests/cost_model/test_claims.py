"""Verdicts: what arithmetic excludes stays excluded, what is measured is judged by its numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_probe.cost_model import entropy_range, flux_kontext_dev, published_config
from recast_probe.errors import InputError
from recast_probe.paper_claims import MEASURED, VERDICTS, check_claims, markdown_table
from recast_probe.paper_claims.measurements import collect
from recast_probe.paper_claims.quantity import Quantity
from recast_probe.paper_claims.verdict import TESTED

FLUX = flux_kontext_dev()
SMALL_LOSSES = ("reused_above_fresh", "token_cache_above_recast")
# the difference that decides a claim by itself
DECIDES = {
    "adaptive_above_flat": "Late steps need",
    "recast_above_self_attention": "ReCAST above Attn-Prune",
    "self_attention_above_merge": "Attn-Prune above ToMe",
    "merge_above_random": "ToMe above random",
    "style_transfer_above_others": "Style transfer",
}


def judged(measured=None, words: str = ""):
    """All verdicts, or the one whose claim has these words."""
    found = check_claims(FLUX, measured)
    if not words:
        return found
    (verdict,) = (each for each in found if words in each.claim)
    return verdict


def about(mean, half=0.01, p=0.0002, count=24) -> dict:
    return {"mean": mean, "low": mean - half, "high": mean + half, "p_value": p, "count": count}


GOOD = {
    "model": "pocket",
    "top25": about(0.85),
    "top25_of_blocks": about(0.87),
    "entropy_first": about(7.5),
    "entropy_last": about(5.0),
    "entropy_maximum": 8,
    "auroc": about(0.95),
    "auroc_center": 0.84,
    "auroc_other_masks": 0.75,
    "spearman": about(0.95),
    "retention": about(0.97),
    "reference_gain": about(0.95),
    "token_cache_retention": about(0.96),
    "ip_adapter_tokens": 128,
    "ip_adapter_top25": about(0.75),
    "ip_adapter_retention": about(0.97),
    **{name: about(0.1) for name in TESTED},
    "entropy_fall": about(2.5),
    **{name: about(0.0) for name in SMALL_LOSSES},
}
BAD = {
    "model": "pocket",
    "top25": about(0.5),
    "top25_of_blocks": about(0.6),
    "entropy_first": about(6),
    "entropy_last": about(7),
    "auroc": about(0.5),
    "spearman": about(0.2),
    "retention": about(0.4),
    "token_cache_retention": about(0.5),
    "ip_adapter_tokens": 128,
    "ip_adapter_top25": about(0.75),
    "ip_adapter_retention": about(0.5),
    **{name: about(-0.1) for name in TESTED},
    **{name: about(-0.05) for name in SMALL_LOSSES},
}


def test_without_measurements_only_arithmetic_speaks():
    found = judged()
    assert {each.measured for each in found} == {"-"}
    assert {each.verdict for each in found} <= set(VERDICTS)
    impossible = [each.claim for each in found if each.verdict == "impossible"]
    assert len(impossible) == 5
    for words in ("2.4x faster", "2.6x at 512", "2.9x at 256", "14.2 s", "2.59x"):
        assert judged(words=words).verdict == "impossible"
    for words in ("1.5x at 2,048", "2.0x at 1,024"):
        assert judged(words=words).verdict == "fails under equal efficiency"
    assert judged(words="about 600").verdict == "fails"
    assert judged(words="together with ToCa").verdict == "not testable here"
    assert all(each.rests_on != "-" for each in found)


def test_what_nobody_measured_is_told_apart_and_says_what_measures_it():
    unmeasured = [each for each in judged() if each.verdict == "not measured"]
    assert len(unmeasured) == 13
    for each in unmeasured:
        assert "recast-probe study " in each.test
        assert "--measured" in each.test
    # what a single command would measure is not called untestable
    untestable = [each.claim for each in judged() if each.verdict == "not testable here"]
    assert untestable == [
        "3.38x together with ToCa",
        "Table 1 averages two benchmarks, and Table 2 is one of them",
    ]


def test_numbers_decide():
    measured = [each for each in judged(GOOD) if each.measured != "-"]
    assert len(measured) == 13
    assert {each.verdict for each in measured} == {"holds"}
    assert all("n = 24" in each.measured for each in measured if "Entropy" not in each.claim)
    assert {each.verdict for each in judged(BAD) if each.measured != "-"} == {"fails"}


@pytest.mark.parametrize(
    "value",
    [
        about(0.1, half=0.2),  # the interval holds 0
        about(0.1, p=0.3),
        about(0.1) | {"p_value": None},
        about(0.1) | {"low": None, "high": None},
        about(0.1) | {"low": None},
        {"mean": 0.1},
        0.1,
        about(-0.1, half=0.2),
        about(-0.1, p=0.3),
    ],
)
@pytest.mark.parametrize("name", DECIDES)
def test_a_tested_difference_that_decides_nothing_is_not_decided(name, value):
    assert judged({name: value}, DECIDES[name]).verdict == "not decided"


def test_p_values_are_corrected_for_one_another():
    lone = judged({"merge_above_random": about(0.1, p=0.02)}, "ToMe above random")
    assert lone.verdict == "holds"
    more = {name: about(0.1, p=0.02) for name in ("adaptive_above_flat", "entropy_fall")}
    together = judged({"merge_above_random": about(0.1, p=0.02)} | more, "ToMe above random")
    assert together.verdict == "not decided"
    assert "by Holm over 3 0.06" in together.test
    # values without p-values are no part of it
    assert judged(GOOD, "ToMe above random").test == "sign flips, p < 0.001, by Holm over 8 0.0016"


@settings(max_examples=15, deadline=None)
@given(
    low=st.floats(-1, 1),
    width=st.floats(0, 1),
    p=st.one_of(st.none(), st.floats(0, 1)),
    shift=st.floats(0, 1),
)
def test_a_larger_difference_is_never_judged_worse(low, width, p, shift):
    order = ["fails", "not decided", "holds"]
    values = [
        {"mean": low + width / 2 + by, "low": low + by, "high": low + width + by, "p_value": p}
        for by in (0, shift)
    ]
    for name, words in (*DECIDES.items(), ("reused_above_fresh", "reused ranking")):
        before, after = (judged({name: value}, words).verdict for value in values)
        assert order.index(before) <= order.index(after)


@settings(max_examples=15, deadline=None)
@given(low=st.floats(0, 1), width=st.floats(0, 0.5), shift=st.floats(0, 0.5))
def test_a_larger_level_is_never_judged_worse(low, width, shift):
    order = ["fails", "not decided", "holds"]
    for name, words in (
        ("retention", "97.3 %"),
        ("spearman", "Rankings"),
        ("top25", "top 25 % of reference"),
    ):
        before, after = (
            judged({name: about(low + width / 2 + by, half=width / 2)}, words).verdict
            for by in (0, shift)
        )
        assert order.index(before) <= order.index(after)


def test_a_level_is_decided_by_its_interval_or_says_that_there_was_none():
    assert judged({"retention": about(0.94, half=0.02)}, "97.3 %").verdict == "not decided"
    unknown = about(0.5) | {"low": None, "high": None}
    assert judged({"retention": unknown}, "97.3 %").verdict == "not decided"
    alone = judged({"retention": 0.65}, "97.3 %")
    assert alone.verdict == "fails"
    assert "no interval" in alone.test
    assert "40%" in judged(GOOD | {"reference_gain": 0.4}, "97.3 %").measured


def test_the_top_quarter_is_judged_in_both_readings():
    words = "top 25 % of reference"
    assert judged({"top25": about(0.7), "top25_of_blocks": about(0.72)}, words).verdict == "fails"
    split = judged({"top25": about(0.7), "top25_of_blocks": about(0.85)}, words)
    assert split.verdict == "not decided"
    assert "of the mean score" in split.measured
    assert "of each block" in split.measured
    assert judged({"top25_of_blocks": about(0.85)}, words).verdict == "holds"


def test_entropy_falls_by_a_paired_difference():
    """A fall of a millionth is no fall, and one smaller than the paper's holds in direction."""
    ends = {"entropy_first": 7.0, "entropy_last": 6.999999}
    assert judged(ends, "Entropy falls").verdict == "not decided"
    tiny = ends | {"entropy_fall": about(1e-6, half=1e-5)}
    assert judged(tiny, "Entropy falls").verdict == "not decided"
    small = {"entropy_fall": about(0.24, half=0.05), "entropy_maximum": 8}
    assert judged(small, "Entropy falls").verdict == "holds in direction"
    assert "23% of what there can be, where 3% were measured" in judged(small, "Entropy falls").test
    assert judged({"entropy_fall": about(0.2)}, "Entropy falls").verdict == "holds in direction"
    large = {"entropy_fall": about(2.0, half=0.2), "entropy_maximum": 8}
    assert judged(large, "Entropy falls").verdict == "holds"
    rises = {"entropy_fall": about(-0.2, half=0.05)}
    assert judged(rises, "Entropy falls").verdict == "fails"


def test_the_foreground_must_beat_the_middle_and_other_masks_pair_by_pair():
    words = "High scores"
    assert judged({"auroc": about(0.84)}, words).verdict == "not decided"
    both = {"auroc_above_center": about(0.1), "auroc_above_other_masks": about(0.2)}
    assert judged({"auroc": about(0.97)} | both, words).verdict == "holds"
    middle = both | {"auroc_above_center": about(0.0, p=0.9)}
    assert judged({"auroc": about(0.84)} | middle, words).verdict == "not decided"
    worse = both | {"auroc_above_center": about(-0.1)}
    assert judged({"auroc": about(0.76)} | worse, words).verdict == "fails"
    assert judged({"auroc": about(0.97)} | {"auroc_above_center": about(0.1)}, words).verdict == (
        "not decided"
    )


def test_agreement_of_rankings_names_the_mix_of_prompts():
    kinds = {"spearman_same_category": about(0.944), "spearman_other_category": about(-0.152)}
    found = judged({"spearman": about(0.161)} | kinds, "Rankings agree")
    assert found.verdict == "fails"
    assert "0.944" in found.rests_on
    assert "-0.152" in found.rests_on


def test_toca_is_judged_against_recast_alone():
    """Together they keep 68 % of the full run, and no less than ReCAST alone does."""
    words = "Adding ToCa"
    alone = {"retention": about(0.65), "token_cache_retention": about(0.682)}
    assert judged(alone, words).verdict == "not decided"
    pairs = alone | {"token_cache_above_recast": about(0.015, half=0.007)}
    assert judged(pairs, words).verdict == "holds"
    costly = alone | {"token_cache_above_recast": about(-0.06)}
    assert judged(costly, words).verdict == "fails"


def test_style_is_not_decided_by_an_interval_that_holds_0():
    style = {"mean": -0.040, "low": -0.067, "high": 0.003, "p_value": 0.02}
    assert judged({"style_transfer_above_others": style}, "Style").verdict == "not decided"


@pytest.mark.parametrize("low", [-0.03, None])
def test_a_small_loss_needs_its_whole_interval(low):
    unclear = {"mean": -0.01, "low": low, "high": 0.01}
    assert judged({"reused_above_fresh": unclear}, "reused ranking").verdict == "not decided"


@pytest.mark.parametrize(
    ("low", "words"),
    [(-0.0687, "does not exclude a loss of 0.02"), (-0.019, "which excludes a loss of 0.02")],
)
def test_a_reused_ranking_is_told_for_one_kind_of_edit_too(low, words):
    whole = {"mean": 0.057, "low": 0.023, "high": 0.101, "subjects": 8}
    alone = {"mean": -0.0148, "low": low, "high": 0.002, "subjects": 8}
    name = "reused_above_fresh"
    assert "same kind" not in judged({name: whole}, "reused ranking").rests_on
    found = judged({name: whole, f"{name}_of_one_kind": alone}, "reused ranking")
    assert found.verdict == "holds"
    assert f"-0.015 [{low:.3f}, 0.002], n = 8" in found.rests_on
    assert words in found.rests_on


def test_80_percent_in_every_block_and_11_bits_of_their_mean_go_together():
    """Every block has 80 % on its top quarter, and a tenth of the blocks prefer another one."""
    tokens, top = 4096, 1024
    scores = np.full((10, tokens), 0.2 / (tokens - top))
    scores[:9, :top] = scores[9, top : 2 * top] = 0.8 / top
    assert np.sort(scores, axis=1)[:, -top:].sum(1) == pytest.approx(np.full(10, 0.8))
    mean = scores.mean(0)
    bits = -(mean * np.log2(mean)).sum()
    assert bits > 11.2 > entropy_range(tokens, top, 0.8)[1]
    found = judged(words="11.2 bits, where")
    assert found.verdict == "not decided"
    assert "impossible if both are of the mean score" in found.rests_on


@pytest.mark.parametrize(
    ("words", "factors"),
    [
        ("2.4x faster", ("6.6", "8.9")),
        ("1.5x at 2,048", ("2.5",)),
        ("2.0x at 1,024", ("3.8",)),
        ("2.6x at 512", ("11.2",)),
        ("2.9x at 256", ("13.9",)),
        ("2.59x after", ("5.0", "11.1")),
    ],
)
def test_every_speed_says_how_slow_attention_would_have_to_be(words, factors):
    found = judged(words=words)
    assert all(f"{factor} times" in found.rests_on for factor in factors)
    impossible = min(map(float, factors)) > 4
    assert found.verdict == ("impossible" if impossible else "fails under equal efficiency")


def test_speeds_that_arithmetic_does_not_exclude_stay_untested():
    """Measured FLOP of a small model stand beside the verdict and do not change it."""
    measured = {"model": "pocket", "amortised_speed_up": 2.02, "token_cache_speed_up": 3.5}
    reused = judged(measured, "2.59x after")
    assert (reused.verdict, reused.measured) == ("impossible", "at most 2.02x by FLOP")
    cached = judged(measured, "together with ToCa")
    assert (cached.verdict, cached.measured) == ("not testable here", "at most 3.50x by FLOP")
    assert "at most 4.74x" in cached.allowed


def test_other_models_are_judged_by_their_own_work():
    found = {each.claim: each for each in check_claims(published_config("flux2-dev"))}
    kontext = {each.claim: each for each in judged()}
    assert found.keys() == kontext.keys()
    name = "The budget sweep: 1.5x at 2,048 tokens"
    assert found[name].rests_on != kontext[name].rests_on
    assert {each.verdict for each in found.values()} <= set(VERDICTS)


@pytest.mark.parametrize(
    "value",
    [
        "0.5",
        True,
        float("nan"),
        float("inf"),
        {},
        {"low": 0.1, "high": 0.2},
        {"mean": "much"},
        about(0.5) | {"low": 0.9},
        about(0.5) | {"p_value": 2},
    ],
)
def test_a_value_that_means_nothing_is_refused(value):
    with pytest.raises(InputError, match="retention"):
        judged({"retention": value})


def test_a_quantity_says_as_much_as_is_known():
    assert Quantity.read("x", 0.5).text() == "0.500"
    assert Quantity.read("x", about(0.5)).text(".1%") == "50.0% [49.0%, 51.0%], n = 24"
    assert Quantity.read("x", about(0.5) | {"high": None}).text("+.2f") == "+0.50, n = 24"
    assert Quantity.read("x", about(-0.5)).text("+.2f") == "-0.50 [-0.51, -0.49], n = 24"


def test_the_table_has_a_row_for_every_claim():
    lines = markdown_table(judged(GOOD), "pocket").splitlines()
    assert len(lines) == 2 + len(judged())
    assert {line.count("|") for line in lines} == {8}
    assert "measured on pocket" in lines[0]


def test_every_name_that_is_read_is_described():
    assert set(GOOD) - {"model"} <= set(MEASURED)
    assert set(BAD) - {"model"} <= set(MEASURED)


def test_summaries_are_read(tmp_path):
    demo = {
        "model": "pocket",
        "skew": {"top25": 0.7},
        "entropy": {"first": 7, "last": 6},
        "overlap": {"auroc": 0.9},
        "stability": {"spearman": None},
    }
    table = {"model": "pocket", "measured": {"retention": 0.8}}
    files = [tmp_path / name for name in ("demo.json", "table.json", "other.json", "none.json")]
    for path, values in zip(
        files, (demo, table, table | {"model": "flux"}, {"model": "pocket"}), strict=True
    ):
        path.write_text(json.dumps(values))
    found = collect(files[:2])
    assert found == {
        "model": "pocket",
        "top25": 0.7,
        "entropy_first": 7,
        "entropy_last": 6,
        "auroc": 0.9,
        "retention": 0.8,
    }
    assert collect([]) == {}
    with pytest.raises(InputError, match="of flux, the files before of pocket"):
        collect([files[0], files[2]])
    with pytest.raises(InputError, match="nothing that a claim"):
        collect([files[3]])
    with pytest.raises(InputError, match="is no summary"):
        collect([tmp_path / "missing.json"])


def held(folder, name, **summary):
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"model": "pocket", **summary}))
    return path


def test_of_several_files_the_one_of_most_subjects_counts(tmp_path):
    name = "adaptive_above_flat"
    few = held(tmp_path, "table_1", measured={name: {"mean": -0.03, "subjects": 12.0}})
    many = held(tmp_path, "schedules", measured={name: {"mean": -0.06, "count": 24}})
    alone = held(tmp_path, "alone", measured={name: -0.5})
    for files in ([few, many, alone], [alone, many, few]):
        assert collect(files)[name]["mean"] == -0.06
    again = held(tmp_path, "again", measured={name: {"mean": -0.07, "count": 24}})
    assert collect([many, again])[name]["mean"] == -0.07
    assert collect([again, many])[name]["mean"] == -0.06


def test_a_maximum_comes_with_the_entropies_that_it_is_of(tmp_path):
    def entropies(name, first, maximum, count):
        value = {"mean": first, "low": first - 0.1, "high": first, "count": count}
        return held(tmp_path, name, measured={"entropy_first": value, "entropy_maximum": maximum})

    many, few = entropies("many", 7.9, 8.0, 24), entropies("few", 5.5, 6.0, 3)
    for files in ([many, few], [few, many]):
        found = collect(files)
        assert (found["entropy_first"]["mean"], found["entropy_maximum"]) == (7.9, 8.0)


def test_both_studies_of_the_growing_budget_give_its_verdict():
    folder = Path(__file__).parents[2] / "docs" / "measured"
    files = [folder / f"{name}.json" for name in ("schedules", "table_1")]
    numbers = {
        "schedules": "-0.057 [-0.083, -0.033], n = 24",
        "table_1": "-0.032 [-0.050, -0.011], n = 24",
    }
    # of equally many subjects, so the later one counts
    for order in (files, files[::-1]):
        (found,) = (
            each
            for each in check_claims(FLUX, collect(order))
            if each.claim.startswith("Late steps need")
        )
        assert found.verdict == "fails"
        assert found.measured == numbers[order[-1].stem]


def test_a_study_may_keep_less_than_nothing(tmp_path):
    """Identity is a centred cosine: an arm's mean can lie on the other side of 0."""
    below = {"mean": -0.33, "low": -0.47, "high": -0.21, "subjects": 6}
    found = collect([held(tmp_path, "table_1", measured={"retention": below})])
    (kept,) = (each for each in check_claims(FLUX, found) if "97.3 %" in each.claim)
    assert (kept.verdict, kept.measured) == ("fails", "-33.0% [-47.0%, -21.0%], n = 6")


def test_files_of_other_weights_are_not_put_together(tmp_path):
    first = held(tmp_path, "first", fingerprint="a" * 64, measured={"top25": 0.8})
    other = held(tmp_path, "other", fingerprint="b" * 64, measured={"retention": 0.9})
    adapter = held(tmp_path, "adapter", fingerprint="c" * 64, measured={"ip_adapter_top25": 0.7})
    unsaid = held(tmp_path, "unsaid", measured={"spearman": 0.7})
    assert len(collect([first, adapter, unsaid])) == 4
    with pytest.raises(InputError, match=r"other weights of pocket \(bbbbbbbb\)"):
        collect([first, adapter, other])


def test_entropies_of_two_files_are_held_together(tmp_path):
    most = held(tmp_path, "most", measured={"entropy_maximum": 8})
    beyond = held(tmp_path, "beyond", measured={"entropy_first": 11.2})
    with pytest.raises(InputError, match=r"entropy_first is 11\.2"):
        collect([most, beyond])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"mean": 0.5, "low": 0.96, "high": 1.0}, "does not hold its mean"),
        ({"mean": 0.97, "low": 0.96, "high": 0.98, "count": -3}, "-3 subjects"),
        ({"mean": 0.97, "low": 0.96, "high": 0.98, "subjects": 2.7}, "2.7 subjects"),
        ({"mean": 0.97, "low": 0.96, "high": 0.98, "count": 10**400}, "no finite number"),
    ],
)
def test_quantities_that_contradict_themselves(value, message):
    with pytest.raises(InputError, match=message):
        check_claims(FLUX, {"retention": value})


def test_a_mean_whose_interval_cannot_be_told_decides_nothing():
    found = judged({"retention": {"mean": 0.99, "low": None, "high": None, "count": 1}}, "97.3 %")
    assert (found.verdict, found.measured) == ("not decided", "99.0%, n = 1")
    assert "no interval" in found.test


@pytest.mark.parametrize(
    "entropies", [{"entropy_fall": {"mean": 0.97}}, {"entropy_first": 8.5}, {"entropy_last": 9}]
)
def test_entropies_beyond_their_maximum_are_refused(tmp_path, entropies):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"model": "m", "measured": {"entropy_maximum": 0.5, **entropies}}))
    with pytest.raises(InputError, match=next(iter(entropies))):
        collect([path])


def test_an_adapter_that_adds_nothing_keeps_nothing():
    adapter = {name: value for name, value in GOOD.items() if name.startswith("ip_adapter")}
    words = "IP-Adapter"

    def verdict(**more):
        return judged({"model": "pocket", **adapter, **more}, words=words)

    assert verdict().verdict == "holds"
    assert verdict(ip_adapter_above_none=about(0.1)).verdict == "holds"
    for nothing in (about(0.0), {"mean": 0.1}):
        found = verdict(ip_adapter_above_none=nothing)
        assert found.verdict == "not decided"
        assert "without any" in found.test
    # what any picture adds is not what this one tells
    found = verdict(ip_adapter_above_none=about(0.1), ip_adapter_above_other=about(0.0))
    assert found.verdict == "not decided"
    assert "another subject's picture" in found.test
    more = {"ip_adapter_above_none": about(0.1), "ip_adapter_above_other": about(0.05)}
    assert verdict(**more).verdict == "holds"
    assert verdict(ip_adapter_top25=about(0.3)).verdict == "fails"
    nothing = {"ip_adapter_above_none": about(0.0), "ip_adapter_top25": about(0.3)}
    assert verdict(**nothing).verdict == "not decided"
