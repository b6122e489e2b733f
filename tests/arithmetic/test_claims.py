"""Verdicts: what arithmetic excludes stays excluded, what is measured is judged by its numbers."""

from __future__ import annotations

import json

import pytest

from recast_probe.arithmetic import flux_kontext_dev
from recast_probe.arithmetic.claims import MEASURED, check_claims
from recast_probe.arithmetic.measured import collect
from recast_probe.errors import InputError

FLUX = flux_kontext_dev()
CLAIMED_ABOVE = [name for name in MEASURED if "above" in name and name != "reused_above_fresh"]


def verdicts(measured=None) -> dict[str, str]:
    return {each.claim: each.verdict for each in check_claims(FLUX, measured)}


def by_words(found, words) -> str:
    (verdict,) = (value for claim, value in found.items() if words in claim)
    return verdict


def difference(mean, p):
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "p_value": p}


def test_without_measurements_only_arithmetic_speaks():
    found = verdicts()
    impossible = [claim for claim, verdict in found.items() if verdict == "impossible"]
    assert len(impossible) == 5
    for words in ("2.4x faster", "budget sweep", "14.2 s", "11.2 bits, where", "2.59x"):
        assert by_words(found, words) == "impossible"
    assert by_words(found, "about 600") == "fails"
    assert by_words(found, "together with ToCa") == "not testable here"
    assert by_words(found, "top 25 % of reference") == "not testable here"


def test_numbers_decide():
    good = {
        "model": "pocket",
        "top25": 0.85,
        "entropy_first": 7,
        "entropy_last": 6,
        "auroc": 0.95,
        "spearman": 0.92,
        "retention": 0.97,
        "token_cache_retention": 0.96,
        "ip_adapter_tokens": 128,
        "ip_adapter_top25": 0.75,
        "ip_adapter_retention": 0.97,
        "reused_above_fresh": {"mean": -0.005, "low": -0.01, "high": 0.0, "p_value": 0.1},
        **{name: difference(0.1, 0.001) for name in CLAIMED_ABOVE},
    }
    bad = {
        "model": "pocket",
        "top25": 0.5,
        "entropy_first": 6,
        "entropy_last": 7,
        "auroc": 0.5,
        "spearman": 0.2,
        "retention": 0.4,
        "token_cache_retention": 0.5,
        "ip_adapter_tokens": 128,
        "ip_adapter_top25": 0.75,
        "ip_adapter_retention": 0.5,
        "reused_above_fresh": {"mean": -0.05, "low": -0.07, "high": -0.03, "p_value": 0.001},
        **{name: difference(-0.1, 0.001) for name in CLAIMED_ABOVE},
    }
    measured = [each for each in check_claims(FLUX, good) if each.measured != "-"]
    assert len(measured) == 13
    assert {each.verdict for each in measured} == {"holds"}
    assert all("pocket" in each.measured for each in measured)
    assert {e.verdict for e in check_claims(FLUX, bad) if e.measured != "-"} == {"fails"}
    chance = good | {"merge_above_random": difference(0.1, 0.3)}
    assert by_words(verdicts(chance), "ToMe above random") == "not testable here"
    for wide in ({"low": -0.03, "high": 0.01}, {"low": None, "high": None}):
        unclear = {"reused_above_fresh": {"mean": -0.01, "p_value": None} | wide}
        assert by_words(verdicts(unclear), "reused ranking") == "not testable here"
    lone = {"merge_above_random": difference(0.1, None) | {"low": None, "high": None}}
    assert by_words(verdicts(lone), "ToMe above random") == "not testable here"


def test_speeds_that_arithmetic_does_not_exclude_stay_untested():
    """Measured FLOP of a small model stand beside the verdict and do not change it."""
    measured = {"model": "pocket", "amortised_speed_up": 2.02, "token_cache_speed_up": 3.5}
    found = {each.claim: each for each in check_claims(FLUX, measured)}
    reused = found["2.59x after 100 generations with one ranking"]
    assert (reused.verdict, reused.measured) == ("impossible", "at most 2.02x by FLOP (pocket)")
    cached = found["3.38x together with ToCa"]
    assert cached.verdict == "not testable here"
    assert cached.measured == "at most 3.50x by FLOP (pocket)"
    assert "at most 4.74x" in cached.allowed


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
