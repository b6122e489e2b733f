"""One observed pipeline run from request to result."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from recast_probe.blocks import select_blocks
from recast_probe.errors import InputError
from recast_probe.images import image_digest
from recast_probe.interventions.base import Intervention, Recording, RunContext
from recast_probe.provenance import attention_backend, now, plain, versions
from recast_probe.recorder import Recorder
from recast_probe.request import Request, as_indices
from recast_probe.result import RunResult
from recast_probe.session import Session
from recast_probe.tracing import trace_calls

if TYPE_CHECKING:
    from recast_probe.probe import Probe

MASS_TABLES = ("all", "queried")

# nnsight traces one thread at a time, and a pipeline has one scheduler
_ONE_RUN = threading.RLock()


@dataclass(frozen=True)
class Selection:
    """What a user wants recorded: blocks, step indices, heads and the group of queries, as in
    ``Probe.profile``."""

    blocks: Any = "all"
    steps: Any = None
    heads: Any = None
    queries: str = "generation"


@contextmanager
def quiet(pipeline: Any) -> Iterator[None]:
    """The pipeline's own progress bar off, as it was afterwards."""
    absent = object()
    before = pipeline.__dict__.get("_progress_bar_config", absent)
    pipeline.set_progress_bar_config(disable=True)
    try:
        yield
    finally:
        if before is absent:
            del pipeline._progress_bar_config
        else:
            pipeline._progress_bar_config = before


def make_recorder(
    probe: Probe,
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
    queries = _query_group(probe, [*wanted, *([] if selection is None else [selection])])
    blocks: set[int] = set()
    steps: set[int] = set()
    if selection is not None:
        blocks |= set(select_blocks(selection.blocks, probe.block_kinds))
        steps |= set(as_indices("profile_steps", selection.steps, len(request.schedule)))
    for recording in wanted:
        blocks |= set(select_blocks(recording.blocks, probe.block_kinds))
        steps |= set(as_indices("profile_step", recording.steps, len(request.schedule)))
    heads = None
    if selection is not None and selection.heads is not None and not wanted:
        heads = as_indices("heads", selection.heads, probe.heads)
    return Recorder(
        blocks=sorted(blocks),
        steps=sorted(steps),
        heads=heads,
        available_heads=probe.heads,
        branches=branches,
        layout=request.layout,
        queries=queries,
    )


def _query_group(probe: Probe, wishes: Sequence[Recording | Selection]) -> str:
    """The one token group whose attention to the reference a run records."""
    groups = sorted({wish.queries for wish in wishes})
    if len(groups) > 1:
        raise InputError(
            f"One run records the attention of one token group, but {' and '.join(groups)} are "
            "asked for; profile in a run of its own, or rank by the attention that is recorded."
        )
    known = probe.family.query_groups
    if groups[0] not in known:
        raise InputError(
            f"queries={groups[0]!r} cannot be recorded in {probe.family.name}; there is "
            f"{', '.join(known)}."
        )
    return groups[0]


def run(
    probe: Probe,
    request: Request,
    *,
    interventions: Sequence[Intervention] = (),
    selection: Selection | None = None,
    mass_table: str = "all",
    progress: bool = False,
    stop_early: bool = False,
) -> RunResult:
    """Run the pipeline under observation.

    Args:
        probe: whose pipeline runs.
        request: the call.
        interventions: what is done to it.
        selection: what is recorded, besides what the interventions need.
        mass_table: see ``Probe.profile``.
        progress: show a progress bar.
        stop_early: stop after the last recorded step; there are no images then.

    Raises:
        InputError: the interventions or the selection do not fit the run; nothing has run.
        VerificationError: a check of exactness failed.
    """
    if mass_table not in MASS_TABLES:
        raise InputError(f"mass_table must be one of {MASS_TABLES}, not {mass_table!r}.")
    for intervention in interventions:
        if not isinstance(intervention, Intervention):
            raise InputError(f"{intervention!r} is not an intervention, such as Prune(...).")
    family, pipeline = probe.family, probe.pipe
    context = RunContext(
        layout=request.layout,
        timesteps=request.schedule.timesteps,
        sigmas=request.schedule.sigmas,
        block_kinds=probe.block_kinds,
        prompts=len(request.prompts),
    )
    _check_together(interventions)
    for intervention in interventions:
        intervention.prepare(context)
    branch_names = family.branch_names(request.arguments)
    recorder = make_recorder(probe, request, selection, interventions, branch_names, context)
    _check_recordable(interventions, recorder, context)
    facts = provenance(probe, request, interventions, recorder)
    transformer = family.transformer(pipeline)
    with _ONE_RUN, quiet(pipeline), ExitStack() as stack:
        attached = [
            stack.enter_context(intervention.attached(family, pipeline, context))
            for intervention in interventions
        ]
        started = _clock(transformer)
        session = Session(
            family=family,
            run=context,
            schedule=request.schedule,
            branches=family.branch_embeddings(pipeline, request.arguments),
            interventions=interventions,
            attachments=[each for each in attached if each is not None],
            recorder=recorder,
            mass_table=mass_table,
            stop_early=stop_early,
            progress=progress,
        )
        try:
            output = trace_calls(
                transformer,
                family.attention_calls(pipeline),
                session.calls,
                lambda: pipeline(**request.pipeline_arguments()),
                session,
            )
        finally:
            session.close()
            if stop_early:
                pipeline.maybe_free_model_hooks()
        seconds = _clock(transformer) - started
    if recorder is not None:
        recorder.check_complete()
    facts["verification"] = session.facts()
    for described, attachment in zip(facts["interventions"], attached, strict=True):
        described |= {} if attachment is None else attachment.facts()
    profiles = []
    if recorder is not None:
        each = [{**facts, "prompt": prompt} for prompt in request.prompts]
        profiles = recorder.profiles(request.schedule, probe.block_kinds, each)
    return RunResult(
        images=() if output is None else tuple(output.images),
        profiles=tuple(profiles),
        reference_tokens_per_step=tuple(session.kept),
        ranking=context.ranking,
        similarity=dict(context.similarity),
        seconds=seconds,
        provenance=facts,
    )


def _check_together(interventions: Sequence[Intervention]) -> None:
    drops = Intervention.reference_tokens
    droppers = [i for i in interventions if type(i).reference_tokens is not drops]
    for intervention in interventions:
        others = [other for other in droppers if other is not intervention]
        if intervention.needs_full_reference and others:
            raise InputError(
                f"{type(intervention).__name__} needs all reference tokens, but "
                f"{type(others[0]).__name__} drops some; use one of them."
            )


def _check_recordable(
    interventions: Sequence[Intervention], recorder: Recorder | None, context: RunContext
) -> None:
    for intervention in interventions:
        blind, name = intervention.unrecordable_steps(context), type(intervention).__name__
        steps = sorted(blind.intersection(() if recorder is None else recorder.steps))
        if steps:
            raise InputError(
                f"Attention cannot be recorded in steps {steps} while {name} acts; choose other "
                "profile_steps."
            )
        for reader in interventions:
            steps = sorted(blind & reader.attention_steps(context))
            if steps:
                raise InputError(
                    f"{type(reader).__name__} reads attention in steps {steps}, which cannot be "
                    f"done while {name} acts; let it rank by something else, or leave one out."
                )


def _clock(transformer: torch.nn.Module) -> float:
    """Seconds, after all work on the GPU is done."""
    if any(parameter.is_cuda for parameter in transformer.parameters()):
        torch.cuda.synchronize()
    return time.perf_counter()


def provenance(
    probe: Probe,
    request: Request,
    interventions: Sequence[Intervention],
    recorder: Recorder | None,
) -> dict[str, Any]:
    """Everything a result should say about how it was made, ready for JSON."""
    transformer = probe.family.transformer(probe.pipe)
    first = next(transformer.parameters())
    skipped = {"image", "prompt", "num_inference_steps", *probe.family.reserved}
    facts: dict[str, Any] = {
        "created": now(),
        "versions": versions(),
        "model": {
            "name": probe.name,
            "family": probe.family.name,
            "pipeline": type(probe.pipe).__name__,
            "fingerprint": probe.fingerprint,
            "dtype": str(first.dtype).removeprefix("torch."),
            "device": str(probe.pipe.device),
            "attention_backend": attention_backend(transformer),
            **probe.family.facts(probe.pipe),
        },
        "prompts": list(request.prompts),
        "seed": request.seed,
        "steps": len(request.schedule),
        "layout": request.layout.to_dict(),
        "arguments": {k: plain(v) for k, v in request.arguments.items() if k not in skipped},
        "interventions": [intervention.describe() for intervention in interventions],
    }
    images = [
        {"sha256": image_digest(image), "width": image.width, "height": image.height}
        for image in request.images
    ]
    if images:
        facts |= {"image": images[0]} if len(images) == 1 else {"images": images}
    if recorder is not None:
        facts["recorded"] = {
            "blocks": recorder.blocks,
            "steps": recorder.steps,
            "heads": recorder.heads,
            "queries": recorder.pair[0],
        }
    return facts
