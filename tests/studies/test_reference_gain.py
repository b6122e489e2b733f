"""The scale from "no reference" to "full": known answers, its ends, and where it has none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_probe.errors import InputError
from recast_probe.studies import reference_gain, retention


def table(arms: dict[str, np.ndarray]) -> pd.DataFrame:
    """Values (subject, prompt) of every arm, as one row a run."""
    return pd.DataFrame(
        {"subject": f"s{subject}", "prompt": str(prompt), "arm": arm, "identity": value}
        for arm, values in arms.items()
        for (subject, prompt), value in np.ndenumerate(values)
    )


def subjects(seed: int = 0, shape=(12, 2)) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.2, 0.3, shape)


def test_a_known_share_of_what_the_reference_adds():
    """Half of the gain, exactly, in every run: retention calls the same thing 75 %."""
    none = subjects()
    found = reference_gain(table({"full": 2 * none, "half": 1.5 * none, "none": none}), "identity")
    assert found.index.tolist() == ["half"]
    assert found.loc["half", ["gain", "low", "high"]].tolist() == pytest.approx([0.5] * 3)
    kept = retention(table({"full": 2 * none, "half": 1.5 * none}), "identity")
    assert kept.loc["half", "retention"] == pytest.approx(0.75)


@given(shares=st.lists(st.floats(-0.5, 1.5), min_size=2, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_it_is_monotone_and_linear_from_none_to_full(shares, seed):
    none = subjects(seed)
    full = none + subjects(seed + 1)
    arms = {f"arm {i}": none + share * (full - none) for i, share in enumerate(shares)}
    found = reference_gain(table({"full": full, "none": none, **arms}), "identity", draws=200)
    assert found["gain"].to_numpy() == pytest.approx(np.array(shares), abs=1e-9)
    assert (found["low"] <= found["gain"] + 1e-9).all()
    assert (found["gain"] <= found["high"] + 1e-9).all()


def test_no_reference_at_all_is_0_and_worse_is_below():
    none, more = subjects(), subjects(1)
    arms = {"full": none + more, "none": none, "same": none.copy(), "harmful": none - more / 4}
    found = reference_gain(table(arms), "identity")
    assert found.loc["same", "gain"] == pytest.approx(0, abs=1e-12)
    assert found.loc["harmful", "gain"] == pytest.approx(-0.25)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_where_the_reference_adds_nothing_there_is_no_share_of_it(noise):
    none = subjects()
    full = none + noise * np.resize([1, -1], none.shape[0])[:, None]
    found = reference_gain(table({"full": full, "arm": none + 0.1, "none": none}), "identity")
    assert found[["gain", "low", "high"]].isna().all(axis=None)
    single = {name: values[:1] for name, values in (("full", none + 1), ("none", none))}
    assert np.isnan(reference_gain(table(single | {"arm": none[:1]}), "identity")["gain"].item())


def test_both_ends_of_the_scale_are_needed():
    arms = {"full": subjects(), "arm": subjects(1)}
    with pytest.raises(InputError, match="no arm 'none'"):
        reference_gain(table(arms), "identity")
