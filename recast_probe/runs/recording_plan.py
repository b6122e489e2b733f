"""What a run records: what the user and the interventions ask for, put together."""

from __future__ import annotations

from collections.abc import Sequence

from recast_probe._utils.checks import check_indices
from recast_probe.blocks import select_blocks
from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention, RunContext
from recast_probe.interventions.needs import Selection
from recast_probe.interventions.run_needs import RunNeeds
from recast_probe.pipelines.base import Family
from recast_probe.runs.call import PipelineCall
from recast_probe.runs.recorder import AttentionRecorder

__all__ = ["Selection", "prepare_run"]


def prepare_run(
    family: Family,
    request: PipelineCall,
    selection: Selection | None,
    interventions: Sequence[Intervention],
    run: RunContext,
    branches: Sequence[str],
    mass_table: str = "all",
) -> tuple[RunNeeds, AttentionRecorder | None]:
    """What the interventions need of a run, and the recorder for what they and the user want.

    Args:
        selection: what the user wants recorded; None for nothing.
        branches: of guidance, that are recorded.
        mass_table: see ``Probe.profile``; nothing but scores is recorded where that is enough for
            interventions that rank, and the user wants nothing recorded.

    Returns:
        The needs, and the recorder or None where nothing is recorded.

    Raises:
        InputError: interventions or a selection that fit neither the run nor one another.
        UnsupportedPipelineError: an intervention that the pipeline's family does not allow.
    """
    for intervention in interventions:
        intervention.prepare(run)
    profiled = (
        [] if selection is None else check_indices("profile_steps", selection.steps, run.steps)
    )
    needs = RunNeeds(interventions, run, family, profiled)
    run.demanded = needs.demanded
    if selection is None and all(each.scores_only for each in needs.recordings):
        mass_table = "scores"
    recorder = _recorder(family, request, selection, needs.recordings, branches, run, mass_table)
    if recorder is not None:
        needs.check_recorded(recorder.steps, recorder.pair[0])
    return needs, recorder


def _recorder(
    family: Family,
    request: PipelineCall,
    selection: Selection | None,
    wanted: Sequence[Selection],
    branches: Sequence[str],
    run: RunContext,
    mass_table: str,
) -> AttentionRecorder | None:
    """An intervention that ranks tokens needs all heads, so its wish for blocks and steps is added
    to the user's and the selection of heads is given up."""
    wishes = [*([] if selection is None else [selection]), *wanted]
    if not wishes:
        return None
    if not request.layout.reference_tokens:
        raise InputError("There are no reference tokens to profile; give a reference image.")
    queries = _query_group(family, wishes)
    blocks = {b for each in wishes for b in select_blocks(each.blocks, run.block_kinds)}
    steps = {s for each in wishes for s in check_indices("profile_steps", each.steps, run.steps)}
    chosen_heads = None
    if selection is not None and selection.heads is not None and not wanted:
        chosen_heads = check_indices("heads", selection.heads, run.heads)
    return AttentionRecorder(
        blocks=sorted(blocks),
        steps=sorted(steps),
        heads=chosen_heads,
        available_heads=run.heads,
        branches=branches,
        layout=request.layout,
        queries=queries,
        mass_table=mass_table,
    )


def _query_group(family: Family, wishes: Sequence[Selection]) -> str:
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
