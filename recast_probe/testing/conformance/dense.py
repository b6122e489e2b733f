"""The attention of a pipeline's own call, computed densely in float64 beside it.

It is reached through the backends of diffusers, and shares nothing with how the probe attaches,
reads or cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from recast_probe.attention.inputs import AttentionInputs
from recast_probe.attention.order import restored
from recast_probe.layout import GROUPS, TokenLayout
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.runs.verification import canonical_rows
from recast_probe.runs.watching import watch_attention
from recast_probe.testing.conformance.case import Made, Runs

# by layout: queries and keys between which nothing flows, as spans of the sequence
Closed = Callable[[TokenLayout], list[tuple[slice, slice]]]


@dataclass
class Dense:
    """Statistics of generation queries by (branch, step, block), each (prompt, head, ...).

    Attributes:
        score: mean probability of each reference token.
        mass: mean probability of text, generation and reference.
        entropy: mean entropy in bits of the probabilities within the reference.
    """

    score: dict[tuple[str, int, int], np.ndarray] = field(default_factory=dict)
    mass: dict[tuple[str, int, int], np.ndarray] = field(default_factory=dict)
    entropy: dict[tuple[str, int, int], np.ndarray] = field(default_factory=dict)


def branch_layouts(runs: Runs) -> Mapping[str, TokenLayout]:
    """Tokens of the transformer calls of one step, in their order."""
    probe, call = runs.probe, runs.call
    prompt = call["prompt"]
    layout = probe.layout(
        call["image"], prompt if isinstance(prompt, str) else prompt[0], **runs.settings
    )
    return probe.family.branch_layouts(layout, probe.pipeline_arguments(**call))


def dense_run(runs: Runs, closed: Closed | None = None) -> tuple[Made, Dense]:
    """The pipeline alone, with statistics of its attention.

    Args:
        closed: edges that get the logit minus infinity in every block, head and step; attention is
            then the dense one.
    """
    probe, found = runs.probe, Dense()
    layouts = branch_layouts(runs)
    calls = probe.family.calls_of_step(list(layouts))

    def on_attention(call: int, attention: int, given: Mapping[str, Any]) -> torch.Tensor | None:
        inputs = watching["inputs"]
        order = probe.family.attention_call_order(inputs)
        if attention not in order:
            return _among_references(given, next(iter(layouts.values())), closed)
        step, branches = call // len(calls), calls[call % len(calls)]
        rows = {branch: layouts[branch] for branch in branches}
        made = [
            _dense_rows(found, (branch, step, order.index(attention)), part, rows[branch], closed)
            for branch, part in canonical_rows(probe.family, inputs, given, rows)
        ]
        if closed is None:
            return None
        places = [probe.family.sequence_order(inputs, layout) for layout in rows.values()]
        outputs = map(restored, made, places, rows.values())
        return torch.cat(list(outputs)).to(given["query"].dtype)

    with watch_attention(probe.family.transformer, on_attention) as watching:
        return runs.plain(), found


def _among_references(
    given: Mapping[str, Any], layout: TokenLayout, closed: Closed | None
) -> torch.Tensor | None:
    """Attention of reference tokens among themselves, which some models compute apart."""
    query, key, value = (given[name].double().transpose(1, 2) for name in ("query", "key", "value"))
    if closed is None or not query.shape[2] == key.shape[2] == layout.reference_tokens:
        return None
    logits = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    own = layout.span("reference")
    probability = logits.masked_fill(_mask(closed, layout)[own, own], -torch.inf).softmax(-1)
    return (probability.nan_to_num(0) @ value).transpose(1, 2).to(given["query"].dtype)


def _mask(closed: Closed, layout: TokenLayout) -> torch.Tensor:
    """Bool (query, key) of the whole sequence: between which nothing flows."""
    mask = torch.zeros(layout.total, layout.total, dtype=torch.bool)
    for queries, keys in closed(layout):
        mask[queries, keys] = True
    return mask


def _dense_rows(
    found: Dense,
    place: tuple[str, int, int],
    part: AttentionInputs,
    layout: TokenLayout,
    closed: Closed | None,
) -> torch.Tensor:
    """Attention's output of one branch (batch, token, head, dim), its statistics noted."""
    query, key, value = (
        each.double().transpose(1, 2) for each in (part.query, part.key, part.value)
    )
    logits = query @ key.transpose(-1, -2) * (part.scale or query.shape[-1] ** -0.5)
    if part.hidden is not None:
        logits = logits.masked_fill(part.hidden[:, None, None], -torch.inf)
    if closed:
        mask = _mask(closed, layout)
        if logits.shape[-1] != layout.total:
            mask = mask[layout.span("generation"), layout.span("reference")]
        logits = logits.masked_fill(mask[: logits.shape[-2]], -torch.inf)
    probability = logits.softmax(-1).nan_to_num(0)  # a query without any key gets nothing
    _note(found, place, probability, layout)
    return (probability @ value).transpose(1, 2)


def _note(
    found: Dense, place: tuple[str, int, int], probability: torch.Tensor, layout: TokenLayout
) -> None:
    if probability.shape[-1] == layout.total:
        rows = probability[:, :, layout.span("generation")]
        masses = [rows[..., layout.span(group)].sum(-1).mean(-1) for group in GROUPS]
        rows = rows[..., layout.span("reference")]
    else:  # a separate attention, from generation tokens to reference tokens alone
        rows = probability
        whole = rows.sum(-1).mean(-1)
        masses = [torch.zeros_like(whole), torch.zeros_like(whole), whole]
    found.score[place] = rows.mean(-2).numpy()
    found.mass[place] = torch.stack(masses, -1).numpy()
    within = rows / rows.sum(-1, keepdim=True)
    found.entropy[place] = -torch.special.xlogy(within, within).sum(-1).mean(-1).numpy() / np.log(2)


def assert_dense(runs: Runs, profiles: Sequence[AttentionProfile], tolerance: float = 2e-5) -> Made:
    """Profiles of these runs hold the dense statistics of the pipeline's own run, everywhere.

    Args:
        profiles: one a prompt.
        tolerance: relative, of scores.

    Returns:
        What the pipeline's own run made.
    """
    plain, dense = dense_run(runs)
    for prompt, profile in enumerate(profiles):
        data = profile.dataset
        spread = data["score"].std("token") / data["score"].mean("token")
        assert float(spread.max()) > 0.01, "Scores that are equal would hide a wrong order."
        places = {
            (str(branch), int(step), int(block))
            for branch in data["branch"].values
            for step in data["step"].values
            for block in data["block"].values
        }
        assert places == set(dense.score), "Not every attention call is in the profile."
        for branch, step, block in places:
            at = {"branch": branch, "step": step, "block": block}
            found = data.sel(at)
            where = (branch, step, block)
            np.testing.assert_allclose(
                found["score"], dense.score[where][prompt], rtol=tolerance, err_msg=str(at)
            )
            np.testing.assert_allclose(
                found["mass"].sel(query_group="generation", key_group=list(GROUPS)),
                dense.mass[where][prompt],
                atol=1e-5,
                err_msg=str(at),
            )
            np.testing.assert_allclose(
                found["conditional_entropy"],
                dense.entropy[where][prompt],
                rtol=1e-4,
                err_msg=str(at),
            )
    return plain
