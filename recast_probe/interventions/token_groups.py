"""Groups of tokens by name, and where they stand in a sequence that may be pruned."""

from __future__ import annotations

import numpy as np

from recast_probe._utils.checks import check_indices
from recast_probe.errors import InputError
from recast_probe.interventions.base import RunContext

TEXT_PARTS = ("padding", "prompt", "vision")


def base_group(group: str) -> str:
    """The one of text, generation and reference that a group is part of."""
    if group in TEXT_PARTS:
        return "text"
    return "reference" if group.startswith("reference_") else group


def check_group(group: str, run: RunContext, tokens: tuple[int, ...] | None = None) -> None:
    """Check that a run has a token group, and these tokens of it.

    Args:
        group: "text", or one of its parts: "padding" (what only fills up), "vision" (what stands
            for parts of a picture) or "prompt" (the rest); "generation", "reference", or
            "reference_<i>" for one of several images.
        tokens: indices within the group.

    Raises:
        InputError: no such group, an image group without tokens, an index outside, or prompts of
            one run whose padding differs.
    """
    every = [positions(group, run, branch) for branch in _branches(group, run)]
    if not len(every[0]) and group == "vision":
        raise InputError("No text tokens of this run stand for parts of a picture.")
    if not len(every[0]) and group == "text":
        raise InputError(
            "This run has no text tokens in the attention that is read and changed: the model "
            "attends to its text elsewhere. Choose generation or reference tokens."
        )
    if not len(every[0]) and group not in TEXT_PARTS:
        raise InputError(f"This run has no {group} tokens; give a reference image.")
    size = min(map(len, every))
    check_indices("tokens", tokens, size, of=f"{group} tokens", empty=True)


def positions(group: str, run: RunContext, branch: str = "conditional") -> np.ndarray:
    """Positions of a group in the full sequence, int64, ascending.

    Raises:
        InputError: no such group, or prompts of one run whose padding differs.
    """
    if group not in TEXT_PARTS:
        try:
            span = run.layout_of(branch).span(group)
        except InputError as error:
            raise InputError(f"{error} Text has the parts {' and '.join(TEXT_PARTS)}.") from None
        return np.arange(span.start, span.stop)
    padding = run.padding()[branch]
    if (padding != padding[:1]).any():
        raise InputError(
            f"The prompts of one run have {padding.sum(1).tolist()} padding tokens, and a run cuts "
            f"the same positions for all of them; run these prompts one by one to use {group!r}."
        )
    vision = run.vision().get(branch, np.zeros_like(padding))
    chosen = {"padding": padding, "vision": vision, "prompt": ~(padding | vision)}
    return np.flatnonzero(chosen[group][0])


def present_positions(
    full: np.ndarray, run: RunContext, length: int, branch: str = "conditional"
) -> np.ndarray:
    """Where positions of the full sequence are now, when reference tokens may be missing.

    Args:
        full: positions in the full sequence, ascending.
        length: of the sequence now: queries and keys may differ, where keys of reference tokens
            come from another step.
        branch: whose sequence it is.

    Returns:
        Positions in the sequence as it is, ascending, of those that are there.

    Raises:
        InputError: the tokens in the sequence are no longer those of the reference.
    """
    layout = run.layout_of(branch)
    start = layout.text + layout.generation.size
    count = length - start
    fixed, reference = full[full < start], full[full >= start] - start
    if count == run.reference_tokens or not len(reference):
        return full
    if len(reference) == run.reference_tokens:
        return np.concatenate([fixed, np.arange(start, length)])
    there = np.empty(0, np.int64) if run.present is None else run.present
    if count not in (0, len(there)):
        raise InputError(
            f"The sequence has {count} reference tokens, which are not {run.reference_tokens} "
            "tokens or some of them (merged tokens, perhaps); tokens cannot be told apart in it."
        )
    there = there if count else there[:0]
    return np.concatenate([fixed, start + np.flatnonzero(np.isin(there, reference))])


def _branches(group: str, run: RunContext) -> list[str]:
    return list(run.branches) if group in ("text", *TEXT_PARTS) else ["conditional"]
