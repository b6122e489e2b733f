"""The readout on a CUDA device: kernels, exactness, repeatability, memory."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from recast_probe.attention import attend, dense_attention, sums
from recast_probe.layout import Grid, TokenLayout

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")

PAIR = ("generation", "reference")
SMALL = TokenLayout(31, Grid(13, 17), (Grid(11, 19),))
KONTEXT = TokenLayout(512, Grid(64, 64), (Grid(64, 64),))
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]


def inputs(layout, heads, width, dtype, batch=1, seed=0):
    generator = torch.Generator("cuda").manual_seed(seed)
    shape = (3, batch, layout.total, heads, width)
    return torch.randn(shape, generator=generator, device="cuda").to(dtype).unbind(0)


@pytest.fixture(autouse=True)
def the_kernel_is_used(monkeypatch):
    """A fallback would make these tests say nothing of the kernel."""
    monkeypatch.setattr(sums._Refused, "reason", None)
    yield
    assert sums._Refused.reason is None, sums._Refused.reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [16, 24, 64, 96, 128, 256])
@pytest.mark.parametrize("table", ["all", "queried"])
def test_statistics_are_those_of_a_dense_softmax(dtype, width, table):
    q, k, v = inputs(SMALL, 3, width, dtype, batch=2)
    found = attend(q, k, v, SMALL, mass_table=table)
    dense = dense_attention(q, k, v, SMALL)
    a, b = found.pairs[PAIR], dense.pairs[PAIR]
    assert ((a.score.double() - b.score).abs() / b.score).max() < 1e-3
    for name in ("marginal_entropy", "conditional_entropy", "mass_weighted_conditional_entropy"):
        torch.testing.assert_close(
            getattr(a, name).double(), getattr(b, name), atol=1e-3, rtol=1e-3
        )
    torch.testing.assert_close(found.mass[:, :, 1].double(), dense.mass[:, :, 1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda each: each.name.lower())
def test_every_fused_kernel_gives_its_own_output_and_a_true_log_sum_exp(backend):
    q, k, v = inputs(SMALL, 4, 64, torch.bfloat16)
    try:
        with sdpa_kernel(backend):
            plain = functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)))
    except RuntimeError as error:
        pytest.skip(f"this device has no such kernel: {error}")
    with sdpa_kernel(backend):
        found = attend(q, k, v, SMALL)
    assert torch.equal(found.output, plain.transpose(1, 2))
    assert found.row_sum_error < 1e-3


def test_two_runs_of_the_full_size_give_the_same_bits():
    q, k, v = inputs(KONTEXT, 24, 128, torch.bfloat16)
    first, second = (attend(q, k, v, KONTEXT, mass_table="queried") for _ in range(2))
    for name in (
        "score",
        "marginal_entropy",
        "conditional_entropy",
        "mass_weighted_conditional_entropy",
    ):
        assert torch.equal(getattr(first.pairs[PAIR], name), getattr(second.pairs[PAIR], name))
    assert torch.equal(first.mass, second.mass) or first.mass.isnan().any()


def test_full_size_scores_against_double_precision():
    q, k, v = inputs(KONTEXT, 24, 128, torch.bfloat16)
    found = attend(q, k, v, KONTEXT, mass_table="queried").pairs[PAIR].score
    for head in (0, 11, 23):
        one = [x[:, :, head : head + 1] for x in (q, k, v)]
        expected = dense_attention(*one, KONTEXT).pairs[PAIR].score
        assert ((found[:, head : head + 1] - expected).abs() / expected).max() < 1e-3


def test_pytorch_and_the_kernel_agree_on_the_same_inputs():
    q, k, _ = inputs(SMALL, 3, 128, torch.bfloat16)
    lse = torch.randn(1, 3, SMALL.total, device="cuda") + 12
    by_triton = sums.pair_sums(q, k, lse, 0.1)
    by_torch = sums.chunked_sums(q, k, lse, 0.1)
    for a, b in zip(by_triton, by_torch, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_extra_memory_of_the_full_size_is_a_fraction_of_the_matrix():
    q, k, v = inputs(KONTEXT, 24, 128, torch.bfloat16)
    attend(q, k, v, KONTEXT, mass_table="queried")  # compiles
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    attend(q, k, v, KONTEXT, mass_table="queried")
    extra = torch.cuda.max_memory_allocated() - before
    assert extra < 0.02 * 2 * 11_901_408_320, "2 % of the model in bfloat16"
