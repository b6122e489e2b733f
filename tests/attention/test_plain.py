"""Attention of plain tensors, against a dense softmax in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import recast_probe as rp

LAYOUT = rp.TokenLayout(3, rp.Grid(2, 3), (rp.Grid(2, 2), rp.Grid(1, 2)))


def tensors(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, LAYOUT.total, 3, 8, generator=generator).to(dtype) for _ in range(3)]


@pytest.mark.parametrize("heads_first", [False, True])
def test_scores_are_the_dense_softmax(heads_first: bool) -> None:
    query, key, value = (each.transpose(1, 2) for each in tensors())
    dense = (query.double() @ key.double().transpose(-1, -2) * 0.7).softmax(-1)
    given = [query, key, value] if heads_first else tensors()
    found = rp.read_attention(
        given[0],
        given[1],
        given[2],
        LAYOUT,
        scale=0.7,
        heads=[2, 0],
        pairs=[("text", "reference_1")],
        heads_first=heads_first,
    )
    expected = dense[:, [2, 0], :3, -2:].mean(2)
    np.testing.assert_allclose(found.pairs["text", "reference_1"].score, expected, rtol=1e-5)
    output = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=0.7)
    assert found.output.shape == given[0].shape
    torch.testing.assert_close(found.output, output if heads_first else output.transpose(1, 2))


def test_gradients_are_not_kept() -> None:
    query, key, value = (each.requires_grad_() for each in tensors())
    assert not rp.read_attention(query, key, value, LAYOUT).output.requires_grad


def test_what_does_not_fit_is_refused() -> None:
    query, key, value = tensors()
    with pytest.raises(rp.InputError, match=r"four axes.*\(15, 24\)"):
        rp.read_attention(query[0].flatten(1), key, value, LAYOUT)
    with pytest.raises(rp.InputError, match="15"):
        rp.read_attention(query[:, :-1], key[:, :-1], value[:, :-1], LAYOUT)
