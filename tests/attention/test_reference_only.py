"""A softmax over reference tokens alone, against the dense one in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_probe.attention import reference_only
from recast_probe.attention.reference_only import PAIR, attend_to_reference
from recast_probe.errors import InputError, VerificationError
from recast_probe.layout import Grid, TokenLayout

LAYOUT = TokenLayout(3, Grid(3, 3), (Grid(1, 4, placed=False),) * 2)


def inputs(layout, batch=2, heads=3, width=8, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    counts = (layout.generation.size, layout.reference_tokens, layout.reference_tokens)
    return [
        (torch.randn(batch, count, heads, width, generator=generator) * 2).to(dtype)
        for count in counts
    ]


def dense(query, key, value):
    """Probabilities (batch, head, query, key) and output, float64."""
    q, k, v = (part.double().transpose(1, 2) for part in (query, key, value))
    probability = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return probability, (probability @ v).transpose(1, 2)


def bits(probability):
    return -torch.special.xlogy(probability, probability).sum(-1) / np.log(2)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 6),
    tokens=st.integers(1, 9),
    images=st.integers(1, 3),
    chunk=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_statistics_are_those_of_the_dense_softmax(rows, tokens, images, chunk, seed):
    layout = TokenLayout(0, Grid(rows, 4), (Grid(1, tokens, placed=False),) * images)
    query, key, value = inputs(layout, seed=seed)
    found = attend_to_reference(query, key, value, layout, chunk=chunk)
    probability, output = dense(query, key, value)
    torch.testing.assert_close(found.output.double(), output, rtol=1e-4, atol=1e-5)
    statistics = found.pairs[PAIR]
    exact = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(statistics.score.double(), probability.mean(-2), **exact)
    marginal = bits(probability.mean(-2))
    torch.testing.assert_close(statistics.marginal_entropy.double(), marginal, **exact)
    conditional = bits(probability).mean(-1)
    torch.testing.assert_close(statistics.conditional_entropy.double(), conditional, **exact)
    assert found.row_sum_error < 1e-5


def test_the_output_is_the_plain_kernels():
    query, key, value = inputs(LAYOUT)
    parts = (part.transpose(1, 2) for part in (query, key, value))
    plain = torch.nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2)
    assert torch.equal(attend_to_reference(query, key, value, LAYOUT).output, plain)


def test_all_mass_is_on_the_reference_and_no_other_group_is_a_query():
    mass = attend_to_reference(*inputs(LAYOUT), LAYOUT).mass
    torch.testing.assert_close(mass[:, :, 1], torch.tensor([0.0, 0.0, 1.0]).expand(2, 3, 3))
    assert mass[:, :, [0, 2]].isnan().all()


def test_some_heads_in_the_order_asked_for():
    parts = inputs(LAYOUT)
    every = attend_to_reference(*parts, LAYOUT)
    some = attend_to_reference(*parts, LAYOUT, heads=[2, 0])
    torch.testing.assert_close(some.pairs[PAIR].score, every.pairs[PAIR].score[:, [2, 0]])
    assert torch.equal(some.output, every.output)


def test_half_precision_is_read_in_float32():
    query, key, value = inputs(LAYOUT, dtype=torch.bfloat16)
    found = attend_to_reference(query, key, value, LAYOUT)
    assert found.output.dtype == torch.bfloat16
    expected = dense(query, key, value)[0].mean(-2)
    torch.testing.assert_close(found.pairs[PAIR].score.double(), expected, rtol=1e-4, atol=1e-6)


def test_a_foreign_log_sum_exp_is_noticed(monkeypatch):
    real = reference_only.attention_with_log_sum_exp

    def wrong(*arguments):
        result = real(*arguments)
        return result._replace(log_sum_exp=result.log_sum_exp + 0.01)

    monkeypatch.setattr(reference_only, "attention_with_log_sum_exp", wrong)
    with pytest.raises(VerificationError, match="miss the sum 1"):
        attend_to_reference(*inputs(LAYOUT), LAYOUT)


def test_inputs_that_do_not_fit_are_refused():
    query, key, value = inputs(LAYOUT)
    with pytest.raises(InputError, match=r"9 generation and 8 reference.*\(2, 8, 3, 8\)"):
        attend_to_reference(query[:, 1:], key, value, LAYOUT)
    with pytest.raises(InputError, match="9 generation and 8 reference"):
        attend_to_reference(query, key[:, 1:], value[:, 1:], LAYOUT)
    with pytest.raises(InputError, match="must have the shape"):
        attend_to_reference(query, key, value[:, 1:], LAYOUT)
    with pytest.raises(InputError, match=r"heads holds 3.*0-2"):
        attend_to_reference(query, key, value, LAYOUT, heads=[3])
    with pytest.raises(InputError, match="Attention of text to reference tokens cannot be read"):
        attend_to_reference(query, key, value, LAYOUT, pairs=[PAIR, ("text", "reference")])
