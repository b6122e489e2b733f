"""The streamed readout against a dense float64 softmax."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from recast_probe.attention import attend, dense_attention
from recast_probe.attention import log_sum_exp as log_sum_exp_module
from recast_probe.attention import readout as readout_module
from recast_probe.errors import InputError, VerificationError
from recast_probe.layout import Grid, TokenLayout

grids = st.builds(Grid, st.integers(1, 7), st.integers(1, 7))
layouts = st.builds(
    TokenLayout, st.integers(1, 11), grids, st.lists(grids, min_size=1, max_size=2).map(tuple)
)
EVERY_PAIR = [
    (source, target)
    for source in ("text", "generation", "reference")
    for target in ("text", "generation", "reference", "reference_0")
]


def random_inputs(layout, batch, heads, width, seed, dtype=torch.float32, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, layout.total, heads, width)
    return [(spread * torch.randn(shape, generator=generator)).to(dtype) for _ in range(3)]


@given(
    layouts,
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 33),
    st.integers(1, 50),
    st.integers(0, 2**31),
    st.sampled_from([0.3, 1.0, 3.0]),
)
@settings(deadline=None, max_examples=25)
def test_float32_statistics_equal_a_dense_softmax(layout, batch, heads, width, chunk, seed, spread):
    inputs = random_inputs(layout, batch, heads, width, seed, spread=spread)
    found = attend(*inputs, layout, pairs=EVERY_PAIR, chunk=chunk)
    dense = dense_attention(*inputs, layout, pairs=EVERY_PAIR)
    # 1e-5 is what is promised; logits of spread 3 reach 40, where sums are rounded to 1e-5
    exactness = 1e-6 if spread <= 1 else 1e-5
    torch.testing.assert_close(found.mass.double(), dense.mass, atol=max(5e-6, exactness), rtol=0)
    for pair in EVERY_PAIR:
        a, b = found.pairs[pair], dense.pairs[pair]
        torch.testing.assert_close(a.score.double(), b.score, atol=exactness, rtol=0)
        for bits in (
            "marginal_entropy",
            "conditional_entropy",
            "mass_weighted_conditional_entropy",
        ):
            torch.testing.assert_close(
                getattr(a, bits).double(), getattr(b, bits), atol=1e-4, rtol=0
            )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [17, 64, 128])
def test_half_precision_scores_are_within_a_thousandth(dtype, width):
    layout = TokenLayout(31, Grid(13, 17), (Grid(11, 19),))
    inputs = random_inputs(layout, 2, 3, width, seed=width, dtype=dtype)
    found = attend(*inputs, layout).pairs["generation", "reference"].score.double()
    dense = dense_attention(*inputs, layout).pairs["generation", "reference"].score
    assert ((found - dense).abs() / dense).max() < 1e-3


@given(layouts, st.integers(0, 2**31))
@settings(deadline=None, max_examples=30)
def test_masses_scores_and_information_are_consistent(layout, seed):
    found = attend(*random_inputs(layout, 1, 2, 8, seed, spread=2.0), layout)
    torch.testing.assert_close(found.mass.sum(-1), torch.ones_like(found.mass[..., 0]))
    pair = found.pairs["generation", "reference"]
    torch.testing.assert_close(pair.score.sum(-1), found.mass[:, :, 1, 2])
    assert (pair.marginal_entropy <= torch.tensor(layout.reference_tokens).log2() + 1e-4).all()
    assert (pair.conditional_entropy >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(1, 5, 1, 4), (2, 97, 3, 32), (1, 544, 4, 32)])
def test_the_output_is_plain_attention_bit_for_bit(dtype, shape):
    layout = TokenLayout(1, Grid(1, 2), (Grid(1, shape[1] - 3),))
    inputs = [torch.randn(shape).to(dtype) for _ in range(3)]
    plain = functional.scaled_dot_product_attention(*(x.permute(0, 2, 1, 3) for x in inputs))
    found = attend(*inputs, layout).output
    assert torch.equal(found, plain.permute(0, 2, 1, 3))
    assert found.stride() == plain.permute(0, 2, 1, 3).stride()


def test_the_unfused_kernel_gives_its_own_output_and_the_same_statistics():
    layout = TokenLayout(5, Grid(6, 7), (Grid(4, 9),))
    inputs = random_inputs(layout, 1, 2, 16, seed=4)
    fused = attend(*inputs, layout)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        unfused = attend(*inputs, layout)
        plain = functional.scaled_dot_product_attention(*(x.permute(0, 2, 1, 3) for x in inputs))
    assert "in chunks" in unfused.backend
    assert fused.backend == "cpu flash"
    assert torch.equal(unfused.output, plain.permute(0, 2, 1, 3))
    torch.testing.assert_close(unfused.mass, fused.mass)


def test_queried_table_reads_only_the_asked_rows():
    layout = TokenLayout(5, Grid(6, 7), (Grid(4, 9),))
    inputs = random_inputs(layout, 1, 2, 16, seed=1)
    whole, part = attend(*inputs, layout), attend(*inputs, layout, mass_table="queried")
    assert part.mass[:, :, [0, 2]].isnan().all()
    torch.testing.assert_close(part.mass[:, :, 1], whole.mass[:, :, 1])
    pair = ("generation", "reference")
    torch.testing.assert_close(part.pairs[pair].score, whole.pairs[pair].score)


def test_selected_heads_are_those_heads():
    layout = TokenLayout(3, Grid(4, 4), (Grid(4, 4),))
    inputs = random_inputs(layout, 2, 5, 8, seed=2)
    whole, part = attend(*inputs, layout), attend(*inputs, layout, heads=[4, 1])
    torch.testing.assert_close(part.mass, whole.mass[:, [4, 1]])
    assert torch.equal(part.output, whole.output)


@pytest.mark.parametrize("table", ["all", "queried"])
@pytest.mark.parametrize("fault", [0.1, float("nan"), float("inf")])
def test_a_wrong_log_sum_exp_is_noticed(monkeypatch, table, fault):
    layout = TokenLayout(3, Grid(4, 4), (Grid(4, 4),))

    def faulty(*arguments):
        result = log_sum_exp_module.attention_with_log_sum_exp(*arguments)
        return result._replace(log_sum_exp=result.log_sum_exp + fault)

    monkeypatch.setattr(readout_module, "attention_with_log_sum_exp", faulty)
    with pytest.raises(VerificationError, match="cpu flash"):
        attend(*random_inputs(layout, 1, 2, 8, seed=3), layout, mass_table=table)


def test_inputs_that_do_not_fit_are_refused():
    layout = TokenLayout(3, Grid(4, 4), (Grid(4, 4),))
    q, k, v = random_inputs(layout, 1, 2, 8, seed=3)
    with pytest.raises(InputError, match="35 tokens but the sequence has 34"):
        attend(q[:, 1:], k[:, 1:], v[:, 1:], layout)
    with pytest.raises(InputError, match="one shape"):
        attend(q, k[:, 1:], v, layout)
    with pytest.raises(InputError, match=r"heads holds 2.*0-1"):
        attend(q, k, v, layout, heads=[2])
    with pytest.raises(InputError, match="at least 1 row"):
        attend(q, k, v, layout, chunk=0)
    bare = TokenLayout(3, Grid(4, 8))
    with pytest.raises(InputError, match="no tokens"):
        attend(q, k, v, bare)


MEMORY = """
import re, torch
from recast_probe.attention import attend, dense_attention
from recast_probe.layout import Grid, TokenLayout
# not ru_maxrss, which starts at the peak of the process that started this one
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
layout = TokenLayout(512, Grid(64, 64), (Grid(64, 64),))
q, k, v = (torch.randn(1, layout.total, 2, 32) for _ in range(3))
small = TokenLayout(1, Grid(1, 1), (Grid(1, 1),))
attend(*(x[:, :3] for x in (q, k, v)), small)
torch.nn.functional.scaled_dot_product_attention(*(x.permute(0, 2, 1, 3) for x in (q, k, v)))
before = peak()
attend(q, k, v, layout)
streamed = peak()
(q.permute(0, 2, 1, 3) @ k.permute(0, 2, 3, 1)).softmax(-1)
print(streamed - before, peak() - streamed)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_full_size_memory_is_a_tenth_of_the_dense_matrix():
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    streamed, more = map(int, run.stdout.split())
    dense = 2 * 8704**2 * 4
    assert streamed < 0.1 * dense
    assert more > dense, "the measurement would not notice a dense matrix"
