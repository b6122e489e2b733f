"""Attention with its tokens in another order is the attention of the canonical sequence."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_probe.attention.inputs import AttentionInputs
from recast_probe.attention.order import (
    GROUPS,
    SequenceOrder,
    arranged,
    arranged_queries,
    group_order,
    restored,
    returned,
    without_dropped,
)
from recast_probe.errors import VerificationError
from recast_probe.layout import Grid, TokenLayout

LAYOUT = TokenLayout(3, Grid(2, 2), (Grid(1, 2), Grid(1, 3)))


def attend(query, key, value):
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    logits = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    return (logits.softmax(-1) @ value).transpose(1, 2)


@settings(deadline=None, max_examples=40)
@given(
    st.permutations(GROUPS),
    st.sampled_from([GROUPS, ("generation",), ("generation", "text"), ("generation", "reference")]),
    st.integers(0, 100),
)
def test_output_of_any_order_is_that_of_the_canonical_one(keys, queries, seed):
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randn(3, 2, LAYOUT.total, 2, 4, generator=generator, dtype=torch.float64)
    query, key, value = whole
    expected = attend(query, key, value)
    spans = {group: LAYOUT.span(group) for group in GROUPS}
    own_key, own_value = (torch.cat([each[:, spans[g]] for g in keys], 1) for each in (key, value))
    own_query = torch.cat([query[:, spans[group]] for group in queries], 1)
    order = group_order(LAYOUT, keys, queries)
    assert order.query_groups == tuple(group for group in GROUPS if group in queries)
    assert set(order.missing()) == set(GROUPS) - set(queries)
    canonical = arranged(AttentionInputs(own_query, own_key, own_value), order, LAYOUT)
    assert torch.equal(canonical.key, key)
    assert torch.equal(canonical.value, value)
    for group in queries:
        if "reference" not in order.query_groups or spans["reference"].stop:
            rows = spans[group]
            if order.query_groups in (GROUPS, ("text", "generation"), ("generation",)):
                assert torch.equal(canonical.query[:, rows], query[:, rows])
    given_back = restored(attend(canonical.query, canonical.key, canonical.value), order, LAYOUT)
    wanted = torch.cat([expected[:, spans[group]] for group in queries], 1)
    torch.testing.assert_close(given_back, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("queries", [GROUPS, ("generation",), ("text", "generation")])
def test_what_was_arranged_is_returned_as_it_was(queries):
    keys = ("reference", "text", "generation")
    order = group_order(LAYOUT, keys, queries)
    query = torch.randn(2, len(order.queries), 2, 4)
    key, value = torch.randn(2, 2, LAYOUT.total, 2, 4)
    hidden = torch.rand(2, LAYOUT.total) > 0.5
    canonical = arranged(AttentionInputs(query, key, value, hidden=hidden), order, LAYOUT)
    bias = torch.arange(float(LAYOUT.total))
    found = returned(replace(canonical, logit_bias=bias), order, LAYOUT)
    for name, expected in {"query": query, "key": key, "value": value, "hidden": hidden}.items():
        assert torch.equal(getattr(found, name), expected)
    spans = [bias[LAYOUT.span(group)] for group in keys]
    assert torch.equal(found.logit_bias, torch.cat(spans))
    output = torch.randn_like(query)
    assert torch.equal(restored(arranged_queries(output, order, LAYOUT), order, LAYOUT), output)


def test_hidden_keys_move_with_their_tokens():
    query = torch.randn(1, LAYOUT.total, 1, 4)
    order = group_order(LAYOUT, ("generation", "reference", "text"))
    hidden = torch.zeros(1, LAYOUT.total, dtype=torch.bool)
    hidden[0, -1] = True  # the last text token
    found = arranged(AttentionInputs(query, query, query, hidden=hidden), order, LAYOUT)
    assert found.hidden.nonzero().tolist() == [[0, LAYOUT.text - 1]]


def test_no_order_is_the_canonical_one():
    inputs = AttentionInputs(*torch.randn(3, 1, LAYOUT.total, 1, 4))
    assert arranged(inputs, None, LAYOUT) is inputs
    assert restored(inputs.query, None, LAYOUT) is inputs.query


def test_other_numbers_of_tokens_are_refused():
    query = torch.randn(1, LAYOUT.total - 1, 1, 4)
    order = group_order(LAYOUT, ("reference", "text", "generation"))
    with pytest.raises(VerificationError, match=f"{LAYOUT.total - 1} queries .* {LAYOUT.total}"):
        arranged(AttentionInputs(query, query, query), order, LAYOUT)


def test_places_may_be_given_one_by_one():
    places = torch.arange(LAYOUT.total).flip(0)
    order = SequenceOrder(places, places)
    key = torch.randn(1, LAYOUT.total, 1, 4)
    assert torch.equal(arranged(AttentionInputs(key, key, key), order, LAYOUT).key, key.flip(1))


def test_keys_that_are_left_out_are_in_no_attention():
    query, key, value = torch.randn(3, 1, LAYOUT.total, 1, 4, dtype=torch.float64)
    dropped = LAYOUT.total - 2
    there = torch.cat([torch.arange(dropped), torch.tensor([LAYOUT.total - 1])])
    own = query[:, LAYOUT.span("generation")]
    places = torch.arange(LAYOUT.generation.size)
    order = SequenceOrder(there, places, ("generation",), left_out=1)
    found = arranged(AttentionInputs(own, key, value), order, LAYOUT)
    assert torch.equal(found.key, key[:, there])
    logits = (own.transpose(1, 2) @ key.transpose(1, 2).mT / 2).squeeze(1)
    logits[..., dropped] = -torch.inf
    wanted = (logits.softmax(-1) @ value[:, :, 0])[:, :, None]
    output = restored(attend(found.query, found.key, found.value), order, LAYOUT)
    torch.testing.assert_close(output, wanted, atol=1e-12, rtol=0)
    assert torch.equal(returned(found, order, LAYOUT).key, key[:, there.sort().values])
    with pytest.raises(VerificationError, match=f"{LAYOUT.total - 1} keys"):
        arranged(AttentionInputs(own, key[:, 1:], value[:, 1:]), order, LAYOUT)


@settings(deadline=None, max_examples=40)
@given(
    st.permutations(GROUPS),
    st.sampled_from([GROUPS, ("generation", "text"), ("generation", "reference")]),
    st.sets(st.integers(0, LAYOUT.reference_tokens - 1)),
    st.integers(0, 100),
)
def test_dropped_tokens_are_neither_keys_nor_queries(keys, queries, kept, seed):
    generator = torch.Generator().manual_seed(seed)
    whole = group_order(LAYOUT, keys, queries)
    shape = (2, len(whole.queries), 2, 4)
    query = torch.randn(shape, generator=generator, dtype=torch.float64)
    key, value = torch.randn(2, 2, LAYOUT.total, 2, 4, generator=generator, dtype=torch.float64)
    order = without_dropped(whole, LAYOUT, torch.tensor(sorted(kept), dtype=torch.int64))
    grids = (Grid(1, len(kept)),) if kept else ()
    present = TokenLayout(LAYOUT.text, LAYOUT.generation, grids)
    found = arranged(AttentionInputs(query, key, value), order, present)
    output = restored(attend(found.query, found.key, found.value), order, present)
    # the same by minus infinity, in the model's own order
    start = LAYOUT.span("reference").start
    absent = [start + token for token in range(LAYOUT.reference_tokens) if token not in kept]
    closed = torch.zeros(LAYOUT.total, dtype=torch.bool)
    closed[whole.keys[absent]] = True
    logits = torch.einsum("bqhd,bkhd->bhqk", query, key) / query.shape[-1] ** 0.5
    weights = logits.masked_fill(closed, -torch.inf).softmax(-1)
    wanted = torch.einsum("bhqk,bkhd->bqhd", weights, value)
    assert output.shape == wanted.shape
    torch.testing.assert_close(output[:, order.queries], wanted[:, order.queries])
    left = sorted(set(range(output.shape[1])) - set(order.queries.tolist()))
    assert not output[:, left].any()
    assert len(left) == (len(absent) if "reference" in queries else 0)
