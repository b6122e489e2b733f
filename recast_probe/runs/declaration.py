"""Whether a family's words about its pipeline are true, tried before the first run.

Which tokens an attention call holds where is found without the family: text, generation tokens and
reference tokens of a rehearsed call are changed one after the other, the transformer runs up to its
first block's attention, and the rows that move are those of what was changed.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from recast_probe._utils.compat import free_offloaded
from recast_probe.errors import UnsupportedPipelineError, VerificationError
from recast_probe.layout import GROUPS, TokenLayout
from recast_probe.pipelines.base import Family
from recast_probe.pipelines.rehearsal import Rehearsal, rehearse
from recast_probe.pipelines.rehearsed import Rehearsed
from recast_probe.runs.call import PipelineCall
from recast_probe.runs.watching import watch_attention

# of the row that moves most; other rows may move by rounding
MOVES = 1e-2
_CHECKED: weakref.WeakKeyDictionary[Family, weakref.ref[torch.nn.Module]] = (
    weakref.WeakKeyDictionary()
)


class _ReachedError(Exception):
    """The attention was reached that was to be seen; nothing more need run."""


def check_own_declaration(family: Family, request: PipelineCall) -> None:
    """``check_declaration``, once for each transformer, of a family that no test of the package
    vouches for.

    Raises:
        VerificationError, UnsupportedPipelineError: see there.
    """
    own = isinstance(family, Rehearsed) or family.own
    known = _CHECKED.get(family)
    if own and request.images and (known is None or known() is not family.transformer):
        check_declaration(family, request)
        _CHECKED[family] = weakref.ref(family.transformer)


def check_declaration(family: Family, request: PipelineCall) -> None:
    """Check the number of references and the order of tokens in attention.

    Raises:
        VerificationError: one of them is another than the family says; the message names the first
            place that differs, and what was found there.
        UnsupportedPipelineError: the call cannot be rehearsed.
    """
    given, found = len(request.images), len(request.layout.references)
    if given != found:
        raise VerificationError(
            f"{given} reference images were given, and {family.name} finds the tokens of {found} "
            "in the transformer's inputs; correct its reference_arguments or image_grids."
        )
    first = family.attention_calls()[0]
    if first.projections:  # no attention of its own, whose order could be asked
        return
    try:
        _check_order(family, request)
    finally:
        free_offloaded(family.pipe)


def _check_order(family: Family, request: PipelineCall) -> None:
    inputs = _rehearsal(family, request.arguments, 0).first_step[0]
    layout = family.observed_layout(inputs)
    states = _changed_states(inputs, _generation_rows(family, request, inputs, layout))
    embedding = family.observed_embedding(inputs)
    texts = {n: _noised(v, 2) for n, v in inputs.items() if v is embedding}
    plain = _attention(family, inputs)
    moved = {
        group: [
            _moved(before, after)
            for before, after in zip(plain, _attention(family, {**inputs, **other}), strict=True)
        ]
        for group, other in {"text": texts, **states}.items()
        if other
    }
    for axis, declared in enumerate(_declared(family, inputs, layout, plain)):
        kind = ("queries", "keys")[axis]
        _compare(family, kind, declared, {group: rows[axis] for group, rows in moved.items()})


def _rehearsal(family: Family, arguments: Mapping[str, Any], seed: int) -> Rehearsal:
    if isinstance(family, Rehearsed) and not seed:
        return family.rehearsal(arguments)
    return rehearse(
        family.pipe,
        arguments,
        family.rehearsed_output,
        transformer=family.transformer,
        seed=seed,
    )


def _generation_rows(
    family: Family, request: PipelineCall, inputs: Mapping[str, Any], layout: TokenLayout
) -> torch.Tensor:
    """Bool (row,): the rows of the hidden states that follow the noise."""
    noise = {n: v for n, v in request.arguments.items() if n != "latents"}
    other = _rehearsal(family, noise, 1).first_step[0]["hidden_states"]
    states = inputs["hidden_states"]
    found = (states != other).flatten(2).any(dim=-1).any(dim=0)
    pictures = len(found) == 1 + len(layout.references)  # a row is a whole one, or a token
    generation, reference = layout.generation.size, layout.reference_tokens
    if pictures:
        generation, reference = 1, len(layout.references)
    if found.all() and len(found) > generation:
        # the references have noise as well, so the family's word of the inputs is taken
        place = torch.arange(len(found), device=found.device)
        first = getattr(family, "reference_first", False)
        return place >= reference if first else place < generation
    return found


def _changed_states(
    inputs: Mapping[str, Any], generation: torch.Tensor
) -> dict[str, dict[str, torch.Tensor]]:
    """By group, hidden states in which the rows of that group alone are others."""
    states = inputs["hidden_states"]
    other = _noised(states, 3)
    found = {}
    for group, rows in (("generation", generation), ("reference", ~generation)):
        if rows.any():
            chosen = rows.reshape(1, -1, *[1] * (states.ndim - 2))
            found[group] = {"hidden_states": torch.where(chosen, other, states)}
    return found


def _noised(states: torch.Tensor, seed: int) -> torch.Tensor:
    noise = torch.randn(states.shape, generator=torch.Generator("cpu").manual_seed(seed))
    return states + noise.to(states) * states.float().abs().max().clamp(min=1).to(states)


def _attention(family: Family, inputs: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Query and key of the first block's attention for these inputs, (batch, token, ...)."""
    wanted = family.attention_call_order(inputs)[0]
    seen: list[torch.Tensor] = []

    def see(_: int, number: int, arguments: Mapping[str, Any]) -> None:
        if number == wanted:
            seen.extend(arguments[name].detach().flatten(2) for name in ("query", "key"))
            raise _ReachedError

    # a transformer may write into a cache that it is given
    own = {n: v if isinstance(v, torch.Tensor) else copy.deepcopy(v) for n, v in inputs.items()}
    with torch.no_grad(), watch_attention(family.transformer, see), suppress(_ReachedError):
        family.transformer(**own)
    if not seen:
        raise UnsupportedPipelineError(
            f"Attention call {wanted} of the transformer was not reached, and {family.name} says "
            f"that block 0 attends there; it must go through diffusers' dispatch_attention_fn."
        )
    return seen[0], seen[1]


def _moved(before: torch.Tensor, after: torch.Tensor) -> np.ndarray:
    difference = (before.float() - after.float()).abs().amax(dim=(0, 2))
    return (difference > MOVES * difference.max()).cpu().numpy()


def _declared(
    family: Family,
    inputs: Mapping[str, Any],
    layout: TokenLayout,
    plain: tuple[torch.Tensor, torch.Tensor],
) -> list[np.ndarray]:
    """The group of every query and of every key, as the family says."""
    order = family.sequence_order(inputs, layout)
    sizes = {group: len(range(*layout.span(group).indices(layout.total))) for group in GROUPS}
    counts = [states.shape[1] for states in plain]
    groups = GROUPS if order is None else order.query_groups
    if order is None and counts[0] < counts[1]:  # those of the reference may be missing
        groups = GROUPS[:2]
    found = []
    for axis, present in enumerate((groups, GROUPS)):
        kind = ("queries", "keys")[axis]
        names = np.repeat(np.array(present), [sizes[group] for group in present])
        if len(names) != counts[axis]:
            parts = ", ".join(f"{sizes[group]} of {group}" for group in present)
            raise VerificationError(
                f"Block 0 attends with {counts[axis]} {kind}, and {family.name} declares "
                f"{len(names)} ({parts}); correct sequence_order or image_grids."
            )
        if order is not None:
            place = np.asarray(order.keys if axis else order.queries)
            names[place] = names.copy()
        found.append(names)
    return found


def _compare(
    family: Family, kind: str, declared: np.ndarray, moved: Mapping[str, np.ndarray]
) -> None:
    """Raise VerificationError at the first row that does not move with the group that it should
    be of."""
    movers = [
        tuple(group for group, rows in moved.items() if rows[place])
        for place in range(len(declared))
    ]
    # a row that nothing moves may still be of a text that the model replaces, or fills up
    fits = [
        group in found or (not found and (group == "text" or group not in moved))
        for group, found in zip(declared, movers, strict=True)
    ]
    if all(fits):
        return
    first = last = fits.index(False)
    alike = (declared[first], movers[first])
    while last + 1 < len(fits) and (declared[last + 1], movers[last + 1]) == alike:
        last += 1
    what = f"{' and '.join(movers[first])} tokens" if movers[first] else "moved by nothing"
    raise VerificationError(
        f"In block 0's attention {kind} {first} to {last} are {what}, and {family.name} declares "
        f"{declared[first]} tokens there: its sequence_order does not fit this pipeline."
    )
