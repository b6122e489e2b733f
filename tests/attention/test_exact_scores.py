"""Scores within 1e-5 of their sum, whatever the logits are and whoever sums them up."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_probe.attention import Cut, attend, dense_attention, sums
from recast_probe.attention.fused_sums import fused_column_sums
from recast_probe.attention.reference_only import attend_to_reference
from recast_probe.layout import Grid, TokenLayout

PAIR = ("generation", "reference")
LAYOUT = TokenLayout(5, Grid(4, 7), (Grid(5, 6),))
GENERATION, REFERENCE = LAYOUT.span("generation"), LAYOUT.span("reference")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TABLES = ["scores", "queried", "all"]
EXACT = 1e-5


def inputs(seed, dtype=torch.float32, spread=1.0, peak=0.0, layout=LAYOUT):
    """Query, key and value; with a peak, every query looks mostly at the same reference token."""
    generator = torch.Generator().manual_seed(seed)
    shape = (1, layout.total, 3, 16)
    query, key, value = (torch.randn(shape, generator=generator) for _ in range(3))
    query = spread * query
    query[..., 0] = 4 + query[..., 0].abs()
    key[:, layout.span("reference").start + seed % 7, :, 0] += peak
    return [each.to(dtype) for each in (query, key, value)]


def error(found, dense, pair=PAIR):
    """Of the worst score, in parts of the sum of its head."""
    exact = dense.pairs[pair].score
    total = exact.sum(-1, keepdim=True).clamp_min(1e-30)
    return float(((found.pairs[pair].score.double() - exact).abs() / total).max())


@given(
    st.integers(0, 2**31),
    st.sampled_from(DTYPES),
    st.sampled_from(TABLES),
    st.sampled_from([0.1, 1.0, 10.0, 100.0, 1000.0]),
    st.sampled_from([0.0, 3.0, 30.0]),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_scores_of_any_logits(seed, dtype, table, spread, peak, fused):
    given_inputs = inputs(seed, dtype, spread, peak)
    dense = dense_attention(*given_inputs, LAYOUT)
    with pytest.MonkeyPatch.context() as patch:
        # as on a processor with matrix tiles, where it is faster
        patch.setattr(sums, "fused_is_faster", lambda device, dtype: fused)
        # float32 itself rounds sums of such logits, which the check of rows is not for
        found, again = (
            attend(*given_inputs, LAYOUT, mass_table=table, row_sum_tolerance=0.1) for _ in range(2)
        )
    assert error(found, dense) <= EXACT
    assert torch.equal(found.pairs[PAIR].score, again.pairs[PAIR].score)
    assert torch.equal(found.mass.nan_to_num(-1), again.mass.nan_to_num(-1))


@given(
    st.integers(0, 2**31),
    st.sampled_from(DTYPES),
    st.sampled_from([1.0, 30.0, 300.0]),
    st.lists(st.integers(0, LAYOUT.total - 1), max_size=30, unique=True),
    st.lists(st.integers(1, LAYOUT.total - 1), max_size=60, unique=True),
    st.sampled_from([None, (1,), (0, 2)]),
)
@settings(deadline=None, max_examples=40)
def test_scores_where_keys_are_hidden(seed, dtype, spread, rows, keys, heads):
    """A cut key has minus infinity among its logits; some queries see nothing of the reference."""
    given_inputs = inputs(seed, dtype, spread, peak=20.0)
    cuts = [Cut(torch.tensor(sorted(rows)).long(), torch.tensor(sorted(keys)).long(), heads)]
    dense = dense_attention(*given_inputs, LAYOUT, cuts=cuts)
    found = attend(
        *given_inputs, LAYOUT, cuts=cuts, mass_table="scores", row_sum_tolerance=0.1, heads=[2, 1]
    )
    exact = dense.pairs[PAIR].score[:, [2, 1]]
    total = exact.sum(-1, keepdim=True)
    difference = (found.pairs[PAIR].score.double() - exact).abs()
    assert (difference <= EXACT * total + 1e-30).all()
    assert (found.pairs[PAIR].score[exact == 0] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_key_that_takes_all(dtype):
    """Where the whole sum is one score, the kernel's own error would show."""
    for level in (0.0, 0.3, 7.7, 60.0):
        query, key, value = (torch.zeros(1, LAYOUT.total, 1, 16, dtype=dtype) for _ in range(3))
        query[..., 0], key[:, REFERENCE.start, :, 0] = 4, level
        dense = dense_attention(query, key, value, LAYOUT)
        for table in TABLES:
            assert error(attend(query, key, value, LAYOUT, mass_table=table), dense) <= EXACT
    query, key, value = inputs(3, dtype, peak=9.0)
    own = [query[:, GENERATION], key[:, REFERENCE], value[:, REFERENCE]]
    found = attend_to_reference(*own, LAYOUT).pairs[PAIR].score.double()
    logits = torch.einsum("bqhd,bkhd->bhqk", own[0].double(), own[1].double()) / 4
    assert (found - logits.softmax(-1).mean(-2)).abs().max() <= EXACT


@given(st.integers(0, 2**31), st.integers(3, 40), st.integers(7, 50), st.sampled_from([None, 11]))
@settings(deadline=None, max_examples=20)
def test_tiles_of_any_size(seed, rows, columns, chunk):
    query, key, value = inputs(seed)
    dense = dense_attention(query, key, value, LAYOUT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "TILE_ROWS", rows)
        patch.setattr(sums, "TILE_COLUMNS", columns)
        found = attend(query, key, value, LAYOUT, chunk=chunk)
    assert error(found, dense) <= EXACT
    torch.testing.assert_close(found.mass.double(), dense.mass, atol=2e-6, rtol=0)
    for each in fields(dense.pairs[PAIR]):
        exact = getattr(dense.pairs[PAIR], each.name)
        own = getattr(found.pairs[PAIR], each.name).double()
        torch.testing.assert_close(own, exact, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_masses_of_whole_rows_are_free_of_the_kernels_error(dtype):
    """The half-precision kernel on CPUs misses by up to 9e-5; summed rows know by how much."""
    given_inputs = inputs(2, dtype, spread=0.05)
    dense = dense_attention(*given_inputs, LAYOUT)
    found = attend(*given_inputs, LAYOUT)
    torch.testing.assert_close(found.mass.double(), dense.mass, atol=2e-6, rtol=0)


@given(
    st.integers(0, 2**31), st.sampled_from(DTYPES), st.integers(1, 33), st.sampled_from([-700, 90])
)
@settings(deadline=None, max_examples=40)
def test_a_fused_call_carries_the_log_sum_exp_in_full(seed, dtype, width, shift):
    """Rounded to half precision, log-sum-exps of this size would be off by 0.2 and more."""
    generator = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(2, n, 3, width, generator=generator).to(dtype) for n in (37, 29))
    scale = width**-0.5
    logits = torch.einsum("bqhd,bkhd->bhqk", query.double(), key.double()) * scale
    lse = (logits.logsumexp(-1) + torch.rand(2, 3, 37, generator=generator)).float()
    query[..., 0], key[..., 0] = 30.0, 1.0
    logits = torch.einsum("bqhd,bkhd->bhqk", query.double(), key.double()) * scale
    lse = lse + 30 * scale + shift * (shift < 0)
    exact = (logits - lse.double()[..., None]).clamp(max=80).exp().sum(-2)
    found = fused_column_sums(query, key, lse, scale).double()
    if shift > 0:
        torch.testing.assert_close(found, exact, atol=0, rtol=3e-4)
    else:
        assert found.isinf().all()  # nothing that float32 holds, and no wrong number


def test_scores_alone_hold_no_more():
    given_inputs = inputs(5)
    whole = attend(*given_inputs, LAYOUT)
    found = attend(*given_inputs, LAYOUT, mass_table="scores")
    assert torch.equal(found.output, whole.output)
    assert torch.equal(found.pairs[PAIR].score, whole.pairs[PAIR].score)
    torch.testing.assert_close(found.mass[:, :, 1, 2], whole.mass[:, :, 1, 2])
    assert found.mass.isnan().sum() == 8 * 3
    for each in fields(whole.pairs[PAIR])[1:]:
        assert getattr(found.pairs[PAIR], each.name).isnan().all()
