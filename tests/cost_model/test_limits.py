"""Limits of entropy and concentration, and Eq. 4."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast_probe.cost_model import entropy_range, eq_4_mean, gamma_for_mean, largest_top_share
from recast_probe.errors import InputError
from recast_probe.selection.budgets import Adaptive


def test_the_paper_s_two_diagnostics_exclude_each_other():
    assert entropy_range(4096, 1024, 0.8)[1] == pytest.approx(11.04, abs=0.005)
    assert largest_top_share(4096, 1024, 11.2) == pytest.approx(0.752, abs=5e-4)
    assert largest_top_share(4096, 1024, 8.4) == 1


def test_eq_4():
    assert eq_4_mean(256, 1024, 2, 28) == pytest.approx(516.7, abs=0.05)
    # rounded to whole tokens
    assert Adaptive(256, 1024).mean(28) == pytest.approx(516.7, abs=0.5)
    assert gamma_for_mean(256, 1024, 600, 28) == pytest.approx(1.243, abs=5e-4)
    # with many steps the sum becomes 1 / (gamma + 1)
    assert gamma_for_mean(256, 1024, 600, 5000) == pytest.approx(768 / 344 - 1, abs=1e-3)
    assert gamma_for_mean(256, 1024, eq_4_mean(256, 1024, 2, 28), 28) == pytest.approx(2)


@given(st.integers(0, 2**32 - 1), st.integers(3, 40), st.floats(0.05, 5))
def test_no_distribution_leaves_the_range(seed, tokens, concentration):
    share = np.sort(np.random.default_rng(seed).dirichlet(np.full(tokens, concentration)))[::-1]
    share = np.maximum(share, 1e-300)
    entropy = -(share * np.log2(share)).sum()
    for top in range(1, tokens):
        held = min(1.0, max(share[:top].sum(), top / tokens))
        low, high = entropy_range(tokens, top, held)
        assert low - 1e-6 <= entropy <= high + 1e-6
        assert held <= largest_top_share(tokens, top, min(entropy, math.log2(tokens))) + 1e-6


def test_the_ends_are_reached():
    # half on one of four tokens, the rest even; and the least: half, half
    assert entropy_range(4, 1, 0.5) == pytest.approx((1.0, 0.5 + 0.5 * math.log2(6)))
    assert entropy_range(4, 2, 0.5) == pytest.approx((2, 2))
    # 0.4, 0.4, 0.2 is the least even of three with 0.4 on the first
    assert entropy_range(3, 1, 0.4)[0] == pytest.approx(
        -0.8 * math.log2(0.4) - 0.2 * math.log2(0.2)
    )
    assert entropy_range(4, 2, 1) == (0, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: entropy_range(4, 4, 0.5), "hold between"),
        (lambda: entropy_range(4, 2, 0.4), "hold between 0.500 and 1"),
        (lambda: largest_top_share(4, 2, 3), "0 to 2.00 bits"),
        (lambda: gamma_for_mean(256, 1024, 1500, 28), "No exponent"),
    ],
)
def test_what_cannot_be(call, message):
    with pytest.raises(InputError, match=message):
        call()
