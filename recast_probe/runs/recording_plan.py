"""What a run records: the wishes of the user and of the interventions, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recast_probe._utils.checks import check_indices
from recast_probe.blocks import select_blocks
from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention, Recording, RunContext
from recast_probe.pipelines.base import Family
from recast_probe.runs.call import Request
from recast_probe.runs.recorder import Recorder


@dataclass(frozen=True)
class Selection:
    """What a user wants recorded: blocks, step indices, heads and the group of queries, as in
    ``Probe.profile``."""

    blocks: Any = "all"
    steps: Any = None
    heads: Any = None
    queries: str = "generation"


def make_recorder(
    family: Family,
    request: Request,
    selection: Selection | None,
    interventions: Sequence[Intervention],
    branches: Sequence[str],
    context: RunContext,
) -> Recorder | None:
    """The recorder for what the user and the interventions want; None when that is nothing.

    An intervention that ranks tokens needs all heads, so its wish for blocks and steps is added to
    the user's and the selection of heads is given up.

    Raises:
        InputError: an unknown block, step, head or query group, two query groups in one run, or a
            run without reference tokens.
    """
    wanted = [each for each in (i.recording(context) for i in interventions) if each is not None]
    if selection is None and not wanted:
        return None
    if not request.layout.reference_tokens:
        raise InputError("There are no reference tokens to profile; give a reference image.")
    queries = _query_group(family, [*wanted, *([] if selection is None else [selection])])
    blocks: set[int] = set()
    steps: set[int] = set()
    if selection is not None:
        blocks |= set(select_blocks(selection.blocks, context.block_kinds))
        steps |= set(check_indices("profile_steps", selection.steps, len(request.schedule)))
    for recording in wanted:
        blocks |= set(select_blocks(recording.blocks, context.block_kinds))
        steps |= set(check_indices("profile_step", recording.steps, len(request.schedule)))
    chosen_heads = None
    if selection is not None and selection.heads is not None and not wanted:
        chosen_heads = check_indices("heads", selection.heads, family.heads)
    return Recorder(
        blocks=sorted(blocks),
        steps=sorted(steps),
        heads=chosen_heads,
        available_heads=family.heads,
        branches=branches,
        layout=request.layout,
        queries=queries,
    )


def demanded_steps(
    interventions: Sequence[Intervention], selection: Selection | None, context: RunContext
) -> frozenset[int]:
    """Steps that must be computed, since something reads or keeps what they compute."""
    steps: set[int] = set()
    if selection is not None:
        steps |= set(check_indices("profile_steps", selection.steps, context.steps))
    for intervention in interventions:
        recording = intervention.recording(context)
        steps |= set() if recording is None else set(recording.steps)
        steps |= intervention.reading_steps(context) | intervention.renewed_steps(context)
    return frozenset(steps)


def _query_group(family: Family, wishes: Sequence[Recording | Selection]) -> str:
    """The one token group whose attention to the reference a run records."""
    groups = sorted({wish.queries for wish in wishes})
    if len(groups) > 1:
        raise InputError(
            f"One run records the attention of one token group, but {' and '.join(groups)} are "
            "asked for; profile in a run of its own, or rank by the attention that is recorded."
        )
    if groups[0] not in family.query_groups:
        raise InputError(
            f"queries={groups[0]!r} cannot be recorded in {family.name}; there is "
            f"{', '.join(family.query_groups)}."
        )
    return groups[0]


def check_together(interventions: Sequence[Intervention]) -> None:
    """Check that interventions can act in one run.

    Raises:
        InputError: two that rank tokens or cache steps, or one that drops tokens or does not
            compute them beside one that needs them all.
    """
    rankers = [type(i).__name__ for i in interventions if i.ranks]
    if len(rankers) > 1:
        raise InputError(
            f"{' and '.join(rankers)} would rank the tokens of one run twice; use one of them."
        )
    caches = [type(i).__name__ for i in interventions if i.caches]
    if len(caches) > 1 and set(caches) != {"TokenCache"}:
        raise InputError(
            f"{' and '.join(caches)} would skip the work of one run twice; use one of them."
        )
    drops = Intervention.reference_tokens
    droppers = [i for i in interventions if type(i).reference_tokens is not drops]
    reuse = Intervention.reused_steps
    reusers = [type(i).__name__ for i in interventions if type(i).reused_steps is not reuse]
    for intervention in interventions:
        if reusers and intervention.needs_reference_rows:
            raise InputError(
                f"{type(intervention).__name__} needs the hidden states of the reference tokens, "
                f"but {reusers[0]} does not compute them; use one of them."
            )
        others = [other for other in droppers if other is not intervention]
        if intervention.needs_full_reference and others:
            raise InputError(
                f"{type(intervention).__name__} needs all reference tokens, but "
                f"{type(others[0]).__name__} drops some; use one of them."
            )


def check_recordable(
    interventions: Sequence[Intervention], recorder: Recorder | None, context: RunContext
) -> None:
    """Check that what is recorded can be seen while the interventions act.

    Raises:
        InputError: a step in which it cannot.
    """
    reused = {step for each in interventions for step in each.reused_steps(context)}
    if recorder is not None and recorder.pair[0] == "reference" and reused & set(recorder.steps):
        raise InputError(
            "Attention of reference tokens cannot be recorded in steps "
            f"{sorted(reused & set(recorder.steps))}: keys and values of the reference come from "
            "an earlier step there, and its queries are not computed. Record generation or text "
            "queries, or other steps."
        )
    for intervention in interventions:
        steps = sorted(reused & intervention.reference_row_steps(context))
        if steps:
            raise InputError(
                f"{type(intervention).__name__} needs queries or hidden states of the reference in "
                f"steps {steps}, but they are not computed there, since its keys and values come "
                "from an earlier step."
            )
    for intervention in interventions:
        blind, name = intervention.unrecordable_steps(context), type(intervention).__name__
        steps = sorted(blind.intersection(() if recorder is None else recorder.steps))
        if steps:
            raise InputError(
                f"Attention cannot be recorded in steps {steps} while {name} acts; choose other "
                "profile_steps."
            )
        for reader in interventions:
            steps = sorted(blind & reader.reading_steps(context))
            if steps:
                raise InputError(
                    f"{type(reader).__name__} works in the blocks in steps {steps}, which cannot "
                    f"be done while {name} acts; let it rank by something else, or leave one out."
                )
