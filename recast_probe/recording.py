"""What a run records: the wishes of the user and of the interventions, put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from recast_probe.blocks import select_blocks
from recast_probe.errors import InputError
from recast_probe.families.base import Family
from recast_probe.interventions.base import Intervention, Recording, RunContext
from recast_probe.recorder import Recorder
from recast_probe.request import Request, as_indices


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
    heads: int,
    request: Request,
    selection: Selection | None,
    interventions: Sequence[Intervention],
    branches: Sequence[str],
    context: RunContext,
) -> Recorder | None:
    """The recorder for what the user and the interventions want; None when that is nothing.

    An intervention that ranks tokens needs all heads, so its wish for blocks and steps is added to
    the user's and the selection of heads is given up.

    Args:
        heads: attention heads of the model.

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
        steps |= set(as_indices("profile_steps", selection.steps, len(request.schedule)))
    for recording in wanted:
        blocks |= set(select_blocks(recording.blocks, context.block_kinds))
        steps |= set(as_indices("profile_step", recording.steps, len(request.schedule)))
    chosen_heads = None
    if selection is not None and selection.heads is not None and not wanted:
        chosen_heads = as_indices("heads", selection.heads, heads)
    return Recorder(
        blocks=sorted(blocks),
        steps=sorted(steps),
        heads=chosen_heads,
        available_heads=heads,
        branches=branches,
        layout=request.layout,
        queries=queries,
    )


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
        InputError: two that rank tokens, or one that drops tokens beside one that needs them all.
    """
    rankers = [type(i).__name__ for i in interventions if i.ranks]
    if len(rankers) > 1:
        raise InputError(
            f"{' and '.join(rankers)} would rank the tokens of one run twice; use one of them."
        )
    drops = Intervention.reference_tokens
    droppers = [i for i in interventions if type(i).reference_tokens is not drops]
    for intervention in interventions:
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
                    f"{type(reader).__name__} reads from the blocks in steps {steps}, which cannot "
                    f"be done while {name} acts; let it rank by something else, or leave one out."
                )
