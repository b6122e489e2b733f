"""Keys that a model leaves out of the softmax have probability 0, row by row of a batch."""

from __future__ import annotations

import pytest
import torch

from recast_probe.attention import attend
from recast_probe.attention.inputs import AttentionInputs
from recast_probe.attention.key_mask import hidden_keys, visible_parts, without_hidden
from recast_probe.attention.query_rows import query_rows
from recast_probe.layout import Grid, TokenLayout

LAYOUT = TokenLayout(4, Grid(2, 2), (Grid(1, 3),))
HIDDEN = torch.zeros(3, LAYOUT.total, dtype=torch.bool)
HIDDEN[0, 2:4] = HIDDEN[2, 3] = True  # padding of the first and the third row


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 3, LAYOUT.total, 2, 8, generator=generator)
    return AttentionInputs(q, k, v, hidden=HIDDEN)


def dense(inputs):
    query, key = (each.double().transpose(1, 2) for each in (inputs.query, inputs.key))
    logits = query @ key.transpose(-1, -2) / 8**0.5
    return logits.masked_fill(inputs.hidden[:, None, None], -torch.inf).softmax(-1)


@pytest.mark.parametrize("table", ["all", "queried"])
def test_statistics_are_those_of_the_masked_softmax(inputs, table):
    found = without_hidden(
        lambda part: attend(
            part.query, part.key, part.value, LAYOUT, cuts=part.cuts, mass_table=table
        ),
        inputs,
    )
    probability = dense(inputs)
    generation, reference = LAYOUT.span("generation"), LAYOUT.span("reference")
    score = probability[:, :, generation, reference].mean(2)
    read = found.pairs["generation", "reference"].score
    torch.testing.assert_close(read.double(), score, atol=1e-6, rtol=0)
    mass = probability[:, :, generation, LAYOUT.span("text")].sum(-1).mean(-1)
    torch.testing.assert_close(found.mass[:, :, 1, 0].double(), mass, atol=1e-6, rtol=0)
    value = inputs.value.double().transpose(1, 2)
    output = (probability @ value).transpose(1, 2)
    torch.testing.assert_close(found.output.double(), output, atol=1e-6, rtol=0)


def test_rows_of_chosen_queries(inputs):
    rows = query_rows(inputs, torch.tensor([5, 0]), torch.tensor([3, 8]))
    expected = dense(inputs)[:, :, [5, 0]][..., [3, 8]]
    torch.testing.assert_close(rows.double(), expected, atol=1e-6, rtol=0)
    assert (rows[0, :, :, 0] == 0).all()


def test_rows_that_hide_the_same_keys_are_read_together(inputs):
    parts = {tuple(rows.tolist()): part for rows, part in visible_parts(inputs)}
    assert set(parts) == {(0,), (1,), (2,)}
    assert parts[1,].cuts == ()
    (cut,) = parts[0,].cuts
    assert cut.keys.tolist() == [2, 3]


@pytest.mark.parametrize(
    "mask",
    [
        ~HIDDEN[:, None, None],
        torch.zeros(3, 1, 1, 11).masked_fill(HIDDEN[:, None, None], -torch.inf),
    ],
    ids=["bool", "added"],
)
def test_masks_of_either_kind(mask):
    assert torch.equal(hidden_keys(mask, 3, 11), HIDDEN)


@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(3, 1, 11, 11, dtype=torch.bool),
        torch.ones(3, 2, 1, 11, dtype=torch.bool),
        torch.ones(2, 1, 1, 11, dtype=torch.bool),
        torch.ones(1, 1, 1, 10, dtype=torch.bool),
        torch.full((1, 1, 1, 11), 0.5),
        torch.full((1, 1, 1, 11), torch.nan),
    ],
)
def test_other_masks_are_not_taken_for_it(mask):
    assert hidden_keys(mask, 3, 11) is None
