"""Cut attention against a dense float64 softmax with -inf masks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from recast_probe.attention import Cut, attend, attention_with_cuts, dense_attention
from recast_probe.attention import cuts as cuts_module
from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout

LAYOUT = TokenLayout(7, Grid(5, 4), (Grid(3, 5), Grid(2, 2)))
HEADS = 3
PAIRS = [(a, b) for a in LAYOUT.groups for b in LAYOUT.groups]


def inputs(seed: int, dtype=torch.float32, batch: int = 2):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, LAYOUT.total, HEADS, 8)
    return [torch.randn(shape, generator=generator).to(dtype) for _ in range(3)]


def positions(least: int = 0):
    every = st.sets(st.integers(0, LAYOUT.total - 1), min_size=least)
    return every.map(lambda found: torch.tensor(sorted(found), dtype=torch.int64))


cuts = st.builds(
    Cut,
    positions(),
    positions(),
    st.none() | st.sets(st.integers(0, HEADS - 1)).map(lambda heads: tuple(sorted(heads))),
    st.sampled_from(["renormalised", "value-zeroed"]),
)


@given(st.lists(cuts, min_size=1, max_size=4), st.integers(0, 2**31))
@settings(deadline=None, max_examples=80)
def test_output_equals_the_masked_softmax(chosen, seed):
    found = attention_with_cuts(*inputs(seed), chosen)
    expected = dense_attention(*inputs(seed), LAYOUT, cuts=chosen)
    torch.testing.assert_close(found.output.double(), expected.output, atol=1e-6, rtol=0)


@given(st.lists(cuts, min_size=1, max_size=3), st.integers(0, 2**31), st.integers(1, 40))
@settings(deadline=None, max_examples=40)
def test_statistics_are_those_of_the_cut_attention(chosen, seed, chunk):
    given_inputs = inputs(seed)
    # the first text token is left to everyone, so that all rows are distributions
    chosen = [Cut(cut.queries, cut.keys[cut.keys > 0], cut.heads, cut.removal) for cut in chosen]
    expected = dense_attention(*given_inputs, LAYOUT, pairs=PAIRS, cuts=chosen)
    for heads in (None, [2, 0]):
        found = attend(*given_inputs, LAYOUT, pairs=PAIRS, cuts=chosen, chunk=chunk, heads=heads)
        picked = slice(None) if heads is None else heads
        torch.testing.assert_close(found.mass.double(), expected.mass[:, picked], atol=2e-6, rtol=0)
        torch.testing.assert_close(found.mass.sum(-1), torch.ones(2, found.mass.shape[1], 3))
        for pair in PAIRS:
            score = expected.pairs[pair].score[:, picked]
            torch.testing.assert_close(found.pairs[pair].score.double(), score, atol=1e-6, rtol=0)
            assert found.pairs[pair].conditional_entropy.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_no_cut_names_does_not_change_in_the_last_bit(dtype):
    given_inputs = inputs(3, dtype)
    plain = functional.scaled_dot_product_attention(*(x.permute(0, 2, 1, 3) for x in given_inputs))
    plain = plain.permute(0, 2, 1, 3)
    rows, keys = torch.arange(7, 20), torch.arange(27, 46)
    for nothing in (
        [],
        [Cut(rows[:0], keys)],
        [Cut(rows, keys[:0], removal="value-zeroed")],
        [Cut(rows, keys, ())],
    ):
        assert torch.equal(attention_with_cuts(*given_inputs, nothing).output, plain)
    found = attention_with_cuts(*given_inputs, [Cut(rows, keys, (1,))]).output
    others = torch.ones(LAYOUT.total, HEADS, dtype=torch.bool)
    others[rows, 1] = False
    assert torch.equal(found[:, others], plain[:, others])
    assert not torch.isclose(found[:, ~others], plain[:, ~others]).all()


def test_value_zeroed_keys_keep_their_mass_and_renormalised_ones_give_it_away():
    given_inputs = inputs(4)
    rows, keys = torch.arange(7, 27), torch.arange(27, 46)
    whole = attend(*given_inputs, LAYOUT)
    zeroed = attend(*given_inputs, LAYOUT, cuts=[Cut(rows, keys, None, "value-zeroed")])
    left_out = attend(*given_inputs, LAYOUT, cuts=[Cut(rows, keys)])
    torch.testing.assert_close(zeroed.mass, whole.mass)
    assert (left_out.mass[:, :, 1, 2] == 0).all()
    assert (left_out.pairs["generation", "reference"].score == 0).all()
    torch.testing.assert_close(left_out.mass[:, :, [0, 2]], whole.mass[:, :, [0, 2]])
    kept = whole.mass[:, :, 1, :2].sum(-1)
    assert (kept < 1).all()
    torch.testing.assert_close(left_out.mass[:, :, 1, :2].sum(-1), torch.ones_like(kept))


def test_a_query_without_keys_has_output_zero_and_no_statistics():
    given_inputs, every = inputs(5), torch.arange(LAYOUT.total)
    blind = [Cut(every[7:9], every[:30], (0,)), Cut(every[7:9], every[20:], (0,))]
    found = attention_with_cuts(*given_inputs, blind)
    assert (found.output[:, 7:9, 0] == 0).all()
    assert found.log_sum_exp[:, 0, 7:9].isneginf().all()
    assert found.output[:, 7:9, 1].abs().min() > 0
    with pytest.raises(InputError, match="Some generation tokens see no key at all"):
        attend(*given_inputs, LAYOUT, cuts=blind)
    assert attend(*given_inputs, LAYOUT, cuts=blind, pairs=(), mass_table="queried").pairs == {}
    nothing = attention_with_cuts(*given_inputs, [Cut(every, every)])
    assert (nothing.output == 0).all()


def test_the_work_is_one_call_for_each_group_of_queries(monkeypatch):
    """No mask: the kernel is handed fewer keys. The calls are counted, and the pairs in them."""
    pairs_seen = []
    kernel = cuts_module.attention_with_log_sum_exp

    def counted(query, key, value, scale=None):
        pairs_seen.append(query.shape[1] * key.shape[1] * query.shape[2])
        return kernel(query, key, value, scale)

    monkeypatch.setattr(cuts_module, "attention_with_log_sum_exp", counted)
    total, rows, keys = LAYOUT.total, torch.arange(7, 27), torch.arange(27, 46)
    attention_with_cuts(*inputs(6), [Cut(rows, keys), Cut(torch.arange(7), keys[:3], (2,))])
    assert sorted(pairs_seen) == sorted(
        [HEADS * total * total, HEADS * 20 * (total - 19), 7 * (total - 3)]
    )


def test_cuts_that_do_not_fit_are_refused():
    rows = torch.arange(3)
    for cut, message in (
        (Cut(rows + LAYOUT.total - 1, rows), "queries 45 to 47.*0 to 45"),
        (Cut(rows, rows - 1), "keys -1 to 1"),
        (Cut(rows, rows, (3,)), "heads 3 to 3.*0 to 2"),
        (Cut(rows, rows, removal="softly"), "removal must be one of.*'softly'"),
    ):
        with pytest.raises(InputError, match=message):
            attention_with_cuts(*inputs(0), [cut])
