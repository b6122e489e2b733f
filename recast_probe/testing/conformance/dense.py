"""The attention of a pipeline's own call, computed densely in float64 beside it.

It is reached through the backends of diffusers, and shares nothing with how the probe attaches,
reads or cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from recast_probe.attention.autocast import as_cast
from recast_probe.layout import TokenLayout
from recast_probe.runs.verification import watch_attention
from recast_probe.testing.conformance.case import Made, Runs

# by layout: queries and keys between which nothing flows, as spans of the sequence
Closed = Callable[[TokenLayout], list[tuple[slice, slice]]]
GROUPS = ("text", "generation", "reference")


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
    layouts = list(branch_layouts(runs).items())
    blocks = {call: n for n, call in enumerate(probe.family.attention_call_order())}

    def on_attention(call: int, attention: int, given: Mapping[str, Any]) -> torch.Tensor | None:
        if attention not in blocks:
            return None
        step, (branch, layout) = call // len(layouts), layouts[call % len(layouts)]
        query, key, value = (as_cast(given[name]) for name in ("query", "key", "value"))
        query, key, value = (each.double().transpose(1, 2) for each in (query, key, value))
        scale = given.get("scale") or query.shape[-1] ** -0.5
        logits = query @ key.transpose(-1, -2) * scale
        if closed:
            mask = torch.zeros(layout.total, layout.total, dtype=torch.bool)
            for queries, keys in closed(layout):
                mask[queries, keys] = True
            if logits.shape[-1] != layout.total:
                mask = mask[layout.span("generation"), layout.span("reference")]
            logits = logits.masked_fill(mask, -torch.inf)
        probability = logits.softmax(-1).nan_to_num(0)  # a query without any key gets nothing
        _note(found, (branch, step, blocks[attention]), probability, layout)
        if closed is None:
            return None
        return (probability @ value).transpose(1, 2).to(given["query"].dtype)

    with watch_attention(probe.family.transformer, on_attention):
        return runs.plain(), found


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


def assert_dense(runs: Runs, tolerance: float = 2e-5) -> None:
    """A profile of these runs holds the dense statistics of the pipeline's own run, everywhere.

    Args:
        tolerance: relative, of scores.
    """
    profiles = runs.probe.profile(**runs.call, progress=False)
    _, dense = dense_run(runs)
    for prompt, profile in enumerate(profiles if isinstance(profiles, list) else [profiles]):
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
