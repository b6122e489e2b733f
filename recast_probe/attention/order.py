"""Where the tokens of the canonical sequence stand in a model's own attention call.

The canonical sequence is [text; generation; reference 1; reference 2; ...]. A model may keep its
keys in another order, and compute the queries of some token groups only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recast_probe.attention.inputs import AttentionInputs
from recast_probe.errors import VerificationError
from recast_probe.layout import GROUPS, TokenLayout


@dataclass(frozen=True, eq=False)
class SequenceOrder:
    """Places of canonical tokens in an attention call.

    Attributes:
        keys: int64 (key,), the place among the call's keys of each token of the canonical sequence.
        queries: int64 (query,), the place among the call's queries of each token of
            ``query_groups``.
        query_groups: the groups whose queries the call has, in canonical order; generation is one.
        left_out: how many of the call's keys are of no place: tokens that were dropped, and that
            the model computes all the same. Attention is then that of the other keys.
        queries_left_out: the same of its queries, which then get no output (zeros).

    Examples:
        >>> layout = rp.TokenLayout(2, rp.Grid(1, 3), (rp.Grid(1, 2),))
        >>> order = group_order(layout, ("text", "reference", "generation"), ("generation",))
        >>> order.keys.tolist(), order.queries.tolist()
        ([0, 1, 4, 5, 6, 2, 3], [0, 1, 2])
    """

    keys: Tensor
    queries: Tensor
    query_groups: tuple[str, ...] = GROUPS
    left_out: int = 0
    queries_left_out: int = 0

    def missing(self) -> tuple[str, ...]:
        """Groups whose queries the call does not have."""
        return tuple(group for group in GROUPS if group not in self.query_groups)


def group_order(
    layout: TokenLayout, keys: Sequence[str], queries: Sequence[str] | None = None
) -> SequenceOrder:
    """The order of a call that has its tokens group by group.

    Args:
        layout: the tokens that are there.
        keys: all three groups, in the order of the call's keys.
        queries: the groups of the call's queries, in their order; by default those of the keys.

    Examples:
        >>> layout = rp.TokenLayout(1, rp.Grid(1, 2))
        >>> group_order(layout, ("generation", "reference", "text")).keys.tolist()
        [2, 0, 1]
    """
    queries = keys if queries is None else queries
    present = tuple(group for group in GROUPS if group in queries)
    return SequenceOrder(_places(layout, keys, GROUPS), _places(layout, queries, present), present)


def without_dropped(order: SequenceOrder, layout: TokenLayout, kept: Tensor) -> SequenceOrder:
    """The order of a call in which dropped reference tokens still stand.

    Args:
        order: of all tokens.
        layout: all tokens.
        kept: int64 (token,), which reference tokens stay, ascending.

    Examples:
        >>> import torch
        >>> layout = rp.TokenLayout(1, rp.Grid(1, 2), (rp.Grid(1, 3),))
        >>> order = group_order(layout, ("generation", "reference", "text"))
        >>> kept = without_dropped(order, layout, torch.tensor([0, 2]))
        >>> kept.keys.tolist(), kept.left_out, kept.queries_left_out
        ([5, 0, 1, 2, 4], 1, 1)
    """

    def chosen(places: Tensor) -> Tensor:
        others = len(places) - layout.reference_tokens
        return torch.cat([places[:others], places[others:][kept]])

    keys, queries = chosen(order.keys), order.queries
    if "reference" in order.query_groups:
        queries = chosen(queries)
    lost = len(order.keys) - len(keys), len(order.queries) - len(queries)
    return SequenceOrder(keys, queries, order.query_groups, *lost)


def _places(layout: TokenLayout, given: Sequence[str], wanted: Sequence[str]) -> Tensor:
    start, found = 0, {}
    for group in given:
        span = layout.span(group)
        found[group] = torch.arange(start, start + span.stop - span.start)
        start += span.stop - span.start
    return torch.cat([found[group] for group in wanted])


def arranged(
    inputs: AttentionInputs, order: SequenceOrder | None, layout: TokenLayout
) -> AttentionInputs:
    """An attention call with its tokens in the canonical order.

    Queries of a group before the generation that the call does not have are zeros, and what comes
    of them means nothing; those of the reference, which come last, may be missing.

    Args:
        inputs: in the model's order; its ``hidden`` keys are moved as well.
        layout: the tokens that are there.

    Raises:
        VerificationError: the call has other numbers of tokens than the layout and the order say.
    """
    if order is None:
        return inputs
    queries, keys = inputs.query.shape[1], inputs.key.shape[1]
    expected = (
        len(order.queries) + order.queries_left_out,
        len(order.keys) + order.left_out,
    )
    if (queries, keys) != expected:
        raise VerificationError(
            f"An attention call has {queries} queries and {keys} keys, and {expected[0]} and "
            f"{expected[1]} were expected of {layout}; this model does not attend as it should."
        )
    place = order.keys.to(inputs.key.device)
    hidden = inputs.hidden
    return AttentionInputs(
        arranged_queries(inputs.query, order, layout),
        inputs.key.index_select(1, place),
        inputs.value.index_select(1, place),
        scale=inputs.scale,
        hidden=None if hidden is None else hidden.index_select(1, order.keys.to(hidden.device)),
    )


def arranged_queries(given: Tensor, order: SequenceOrder | None, layout: TokenLayout) -> Tensor:
    """Queries, or attention's output of them, (batch, query, head, dim) in canonical order."""
    if order is None:
        return given
    found = given.index_select(1, order.queries.to(given.device))
    if "text" in order.query_groups:
        return found
    absent = found.new_zeros((found.shape[0], layout.text, *found.shape[2:]))
    return torch.cat([absent, found], dim=1)


def returned(
    inputs: AttentionInputs, order: SequenceOrder | None, layout: TokenLayout
) -> AttentionInputs:
    """What ``arranged`` made, in the model's own order again, so that sums are made in that order.

    Args:
        inputs: without cuts, of as many keys as the order has.
    """
    if order is None:
        return inputs

    by_place = order.keys.argsort()  # keys that were left out leave no gap

    def back(given: Tensor, axis: int) -> Tensor:
        return given.index_select(axis, by_place.to(given.device))

    hidden, bias = inputs.hidden, inputs.logit_bias
    return AttentionInputs(
        restored(inputs.query, order, layout),
        back(inputs.key, 1),
        back(inputs.value, 1),
        scale=inputs.scale,
        logit_bias=None if bias is None else back(bias, 0),
        hidden=None if hidden is None else back(hidden, 1),
    )


def restored(output: Tensor, order: SequenceOrder | None, layout: TokenLayout) -> Tensor:
    """Attention's output (batch, query, head, dim) in the model's own order of queries."""
    if order is None:
        return output
    if "text" not in order.query_groups:
        output = output[:, layout.text :]
    place = order.queries.to(output.device)
    count = len(order.queries) + order.queries_left_out
    whole = output.new_zeros((output.shape[0], count, *output.shape[2:]))
    return whole.index_copy_(1, place, output)
