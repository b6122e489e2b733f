"""Mutual information from streamed sums against the joint distribution; rows next to nothing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_probe.attention import attend
from recast_probe.attention.dense import dense_attention
from recast_probe.attention.inputs import Cut
from recast_probe.attention.reference_only import attend_to_reference
from recast_probe.layout import Grid, TokenLayout

LAYOUT = TokenLayout(5, Grid(4, 4), (Grid(3, 4),))
PAIR = ("generation", "reference")
GENERATION, REFERENCE = LAYOUT.span("generation"), LAYOUT.span("reference")


def joint_information(probability: torch.Tensor) -> torch.Tensor:
    """Bits, from the joint distribution (..., query, key) itself."""
    joint = probability / probability.sum((-1, -2), keepdim=True)
    apart = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    return torch.special.xlogy(joint, joint / apart).nan_to_num(0.0).sum((-1, -2)) / math.log(2)


def probabilities(query, key, rows=GENERATION, columns=REFERENCE):
    q, k = (tensor.permute(0, 2, 1, 3).double() for tensor in (query, key))
    scores = q @ k.transpose(-1, -2) * query.shape[-1] ** -0.5
    return scores.softmax(-1)[:, :, rows, columns]


def information(readout, pair=PAIR):
    found = readout.pairs[pair]
    return (found.marginal_entropy - found.mass_weighted_conditional_entropy).double()


def inputs(seed, spread=1.0, dtype=torch.float32, heads=3):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, LAYOUT.total, heads, 32)
    return [(spread * torch.randn(shape, generator=generator)).to(dtype) for _ in range(3)]


@given(st.integers(0, 2**31), st.sampled_from([0.3, 1.0, 2.0]), st.integers(1, 30))
@settings(deadline=None, max_examples=40)
def test_it_is_that_of_the_joint_distribution(seed, spread, chunk):
    query, key, value = inputs(seed, spread)
    exact = joint_information(probabilities(query, key))
    found = attend(query, key, value, LAYOUT, chunk=chunk)
    torch.testing.assert_close(information(found), exact, atol=5e-6, rtol=0)
    some = attend(query, key, value, LAYOUT, heads=[2, 0], mass_table="queried")
    torch.testing.assert_close(information(some), exact[:, [2, 0]], atol=5e-6, rtol=0)
    for pair in (("text", "generation"), ("reference", "reference"), ("generation", "text")):
        found = attend(query, key, value, LAYOUT, pairs=[pair])
        exact = joint_information(probabilities(query, key, *map(LAYOUT.span, pair)))
        torch.testing.assert_close(information(found, pair), exact, atol=5e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_in_other_precisions(dtype):
    query, key, value = inputs(1, dtype=dtype)
    exact = joint_information(probabilities(query, key))
    found = information(attend(query, key, value, LAYOUT))
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=0)


def test_under_cuts():
    query, key, value = inputs(2)
    cut = Cut(torch.arange(GENERATION.start, GENERATION.start + 7), torch.arange(22, 33), (0, 2))
    found = attend(query, key, value, LAYOUT, cuts=[cut])
    dense = dense_attention(query, key, value, LAYOUT, cuts=[cut])
    torch.testing.assert_close(information(found), information(dense), atol=5e-6, rtol=0)


def test_of_attention_to_the_reference_alone():
    query, key, value = inputs(3, spread=2)
    query = query[:, GENERATION]
    key, value = key[:, REFERENCE], value[:, REFERENCE]
    exact = joint_information(probabilities(query, key, slice(None), slice(None)))
    found = attend_to_reference(query, key, value, LAYOUT)
    torch.testing.assert_close(information(found), exact, atol=5e-6, rtol=0)


def test_queries_count_by_their_mass():
    """A few places carry the mass and look sharply; the others, with next to none, everywhere."""
    width = 32
    query, key = torch.zeros(1, LAYOUT.total, 1, width), torch.zeros(1, LAYOUT.total, 1, width)
    for i in range(4):
        query[0, GENERATION.start + i, 0, i] = 200.0
        key[0, REFERENCE.start + i, 0, i] = 1.0
    query[0, GENERATION.start + 4 : GENERATION.stop, 0, 30] = 40.0
    key[0, : LAYOUT.span("text").stop, 0, 30] = 1.0
    found = attend(query, key, torch.zeros_like(key), LAYOUT)
    exact = joint_information(probabilities(query, key))
    assert exact.item() > 1.9
    torch.testing.assert_close(information(found), exact, atol=5e-6, rtol=0)
    equal = found.pairs[PAIR].marginal_entropy - found.pairs[PAIR].conditional_entropy
    assert equal.item() < 0  # with queries counted equally it would be no information at all


def faint(shift, dtype, rows=slice(None)):
    """Attention whose queries give the reference about exp(shift) of what they give the rest."""
    query, key, value = inputs(0, heads=2)
    query[..., 0] = 0.0
    query[:, rows, :, 0] = 8.0
    key[..., 0] = 0.0
    key[:, REFERENCE, :, 0] = shift * 32**0.5 / 8
    return [tensor.to(dtype) for tensor in (query, key, value)]


SHIFTS = [0, -60, -72, -85, -95, -120, -138]  # the last gives the reference 1e-60


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shift", SHIFTS)
def test_entropies_do_not_hang_on_the_mass(shift, dtype):
    given_inputs = faint(shift, dtype)
    dense = dense_attention(*given_inputs, LAYOUT)
    if shift == SHIFTS[-1]:
        assert dense.mass[0, 0, 1, 2] < 1e-59
    for heads in (None, [1]):
        found = attend(*given_inputs, LAYOUT, heads=heads, chunk=5).pairs[PAIR]
        for name in (
            "marginal_entropy",
            "conditional_entropy",
            "mass_weighted_conditional_entropy",
        ):
            exact = getattr(dense.pairs[PAIR], name)[:, slice(None) if heads is None else heads]
            torch.testing.assert_close(getattr(found, name).double(), exact, atol=1e-5, rtol=0)


def test_faint_rows_among_others():
    rows = torch.arange(GENERATION.start + 3, GENERATION.stop)
    given_inputs = faint(-100, torch.float32, rows)
    found, dense = attend(*given_inputs, LAYOUT), dense_attention(*given_inputs, LAYOUT)
    for name in ("marginal_entropy", "conditional_entropy", "mass_weighted_conditional_entropy"):
        exact = getattr(dense.pairs[PAIR], name)
        torch.testing.assert_close(
            getattr(found.pairs[PAIR], name).double(), exact, atol=1e-5, rtol=0
        )
    # 13 of the 16 rows would have counted as 0 bits
    assert found.pairs[PAIR].conditional_entropy.min() > 2.5


def test_rows_that_see_nothing_of_the_reference_have_no_bits():
    """Cut rows are no faint rows: their logarithms are minus infinity, not far below."""
    query, key, value = inputs(4)
    places = torch.arange(GENERATION.start, GENERATION.stop)
    keys = torch.arange(REFERENCE.start, REFERENCE.stop)
    for rows in (places[:5], places):
        cut = Cut(rows, keys, (1,))
        found = attend(query, key, value, LAYOUT, cuts=[cut]).pairs[PAIR]
        dense = dense_attention(query, key, value, LAYOUT, cuts=[cut]).pairs[PAIR]
        for name in ("conditional_entropy", "mass_weighted_conditional_entropy"):
            exact = getattr(dense, name).nan_to_num(0.0)
            torch.testing.assert_close(getattr(found, name).double(), exact, atol=1e-5, rtol=0)
        assert found.marginal_entropy[:, 1].isnan().all() == (len(rows) == len(places))
        assert found.marginal_entropy[:, [0, 2]].isfinite().all()
