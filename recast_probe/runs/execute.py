"""One observed pipeline run from request to result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch

from recast_probe._utils.compat import quiet
from recast_probe._utils.provenance import attention_backend, now, versions
from recast_probe.attention.readout import MASS_TABLES
from recast_probe.content.description import described
from recast_probe.errors import InputError, VerificationError
from recast_probe.images.loading import image_digest
from recast_probe.interventions.base import Intervention, RunContext
from recast_probe.pipelines.base import Family
from recast_probe.pipelines.one_run import between_runs, in_a_run, observing, one_run
from recast_probe.pipelines.run_identity import pipeline_identity
from recast_probe.runs.attach_hooks import hook_calls
from recast_probe.runs.attach_nnsight import trace_calls
from recast_probe.runs.call import PipelineCall
from recast_probe.runs.declaration import check_own_declaration
from recast_probe.runs.finite import finite_images, origin
from recast_probe.runs.observer import RunObserver
from recast_probe.runs.pipeline_check import check_pipeline, unreadable_blocks
from recast_probe.runs.recorder import AttentionRecorder
from recast_probe.runs.recording_plan import Selection, prepare_run
from recast_probe.runs.result import RunResult

ATTACHMENTS = ("nnsight", "hooks")


def run(
    family: Family,
    request: PipelineCall,
    *,
    interventions: Sequence[Intervention] = (),
    selection: Selection | None = None,
    mass_table: str = "all",
    progress: bool = False,
    stop_early: bool = False,
    attachment: str = "nnsight",
) -> RunResult:
    """Run the pipeline under observation.

    Args:
        family: of the pipeline that runs.
        request: the call.
        interventions: what is done to it.
        selection: what is recorded, besides what the interventions need.
        mass_table: see ``Probe.profile``.
        progress: show a progress bar.
        stop_early: stop after the last recorded step; there are no images then.
        attachment: see ``Probe.generate``.

    Raises:
        InputError: the interventions or the selection do not fit the run; nothing has run.
        UnsupportedPipelineError: the pipeline is not as it must be; see ``pipeline_check``.
        VerificationError: a check of exactness failed.
    """
    if mass_table not in MASS_TABLES:
        raise InputError(f"mass_table must be one of {MASS_TABLES}, not {mass_table!r}.")
    if attachment not in ATTACHMENTS:
        raise InputError(f"attachment must be one of {ATTACHMENTS}, not {attachment!r}.")
    for intervention in interventions:
        if not isinstance(intervention, Intervention):
            raise InputError(f"{intervention!r} is not an intervention, such as Prune(...).")
    pipeline = family.pipe
    check_before_run(family, attachment)
    context = run_context(family, request)
    needs, recorder = prepare_run(
        family, request, selection, interventions, context, context.branches, mass_table
    )
    facts = provenance(family, request, interventions, recorder)
    transformer = family.transformer
    with one_run(), quiet(pipeline), ExitStack() as stack:
        check_own_declaration(family, request)
        stack.enter_context(observing(pipeline))
        hooks = [
            stack.enter_context(intervention.attached(family, context))
            for intervention in interventions
        ]
        started = _clock(transformer)
        session = RunObserver(
            family=family,
            run=context,
            schedule=request.schedule,
            branches=family.branch_embeddings(request.arguments),
            needs=needs,
            hooks=hooks,
            recorder=recorder,
            stop_early=stop_early,
            progress=progress,
        )
        stack.enter_context(finite_images(pipeline))
        checked = transformer.register_forward_hook(lambda _, __, made: session.check_output(made))
        stack.callback(checked.remove)
        try:
            output = _observed(attachment, family, request, session)
        except VerificationError as error:
            if session.suspect is None:
                raise
            stack.close()  # nothing of this run is left on the transformer
            found = origin(transformer, session.suspect)
            raise VerificationError(f"{error} {found}".rstrip()) from None
        finally:
            session.close()
            if stop_early:
                pipeline.maybe_free_model_hooks()
        seconds = _clock(transformer) - started
    if recorder is not None:
        recorder.check_complete()
    facts["verification"] = session.facts()
    for settings, hook in zip(facts["interventions"], hooks, strict=True):
        settings |= hook.facts()
    profiles = []
    if recorder is not None:
        each = [{**facts, "prompt": prompt} for prompt in request.prompts]
        profiles = recorder.profiles(request.schedule, family.block_kinds, each)
    made = () if output is None else tuple(getattr(output, family.output_name))
    layers = tuple(tuple(each) for each in made) if family.layered else ()
    result = RunResult(
        images=tuple(family.whole_picture(each) for each in layers) if family.layered else made,
        layers=layers,
        layer_name=family.layered or "layer",
        profiles=tuple(profiles),
        reference_tokens_per_step=tuple(session.kept),
        outcomes=tuple(hook.result(facts) for hook in hooks),
        seconds=seconds,
        provenance=facts,
        references=request.images,
    )
    if result.ranking is not None:
        facts["ranking"] = result.ranking.describe()
    return result


def run_context(family: Family, request: PipelineCall) -> RunContext:
    """What is known of a run before it runs."""
    return RunContext(
        layout=request.layout,
        timesteps=request.schedule.timesteps,
        sigmas=request.schedule.sigmas,
        block_kinds=family.block_kinds,
        prompts=len(request.prompts),
        heads=family.heads,
        branches=family.branch_names(request.arguments),
        batched=len(family.calls_of_step(family.branch_names(request.arguments))[0]) > 1,
        layouts=family.branch_layouts(request.layout, request.arguments),
        padding=lambda: family.padding_tokens(request.arguments),
        vision=lambda: family.vision_tokens(request.arguments),
    )


def check_before_run(family: Family, attachment: str = "nnsight") -> None:
    """See ``check_pipeline``; waits for the run of another thread, which has hooks in place.

    Raises:
        InputError: this very thread is in a run of the pipeline already, or the process was forked
            in the middle of one.
        UnsupportedPipelineError: the pipeline is not as it must be.
    """
    with between_runs():
        if in_a_run(family.pipe):
            raise InputError(
                "The pipeline is in an observed run already, and a callback of it cannot start "
                "another one; wait until it is done."
            )
        check_pipeline(family, attachment)


def _observed(attachment: str, family: Family, request: PipelineCall, session: RunObserver) -> Any:
    """What the pipeline gave while the session handled its calls."""

    def call() -> Any:
        return request.run(family.pipe)

    if attachment == "hooks":
        return hook_calls(family, session.calls, call, session)
    calls = family.attention_calls()
    with family.keep_rotary_positions():
        return trace_calls(
            family.transformer,
            calls,
            session.calls,
            call,
            session,
            family.pipe,
            unreadable_blocks(family),
        )


def _clock(transformer: torch.nn.Module) -> float:
    """Seconds, after all work on the GPU is done."""
    if any(parameter.is_cuda for parameter in transformer.parameters()):
        torch.cuda.synchronize()
    return time.perf_counter()


def provenance(
    family: Family,
    request: PipelineCall,
    interventions: Sequence[Intervention],
    recorder: AttentionRecorder | None,
) -> dict[str, Any]:
    """Everything a result should say about how it was made, ready for JSON."""
    transformer = family.transformer
    first = next(transformer.parameters())
    identity = pipeline_identity(family.pipe)
    skipped = {"image", "prompt", "num_inference_steps", *family.reserved}
    facts: dict[str, Any] = {
        "created": now(),
        "versions": versions(),
        "model": {
            "name": family.model,
            "family": family.name,
            "pipeline": type(family.pipe).__name__,
            "fingerprint": identity["fingerprint"],
            "identity": identity,
            "dtype": str(first.dtype).removeprefix("torch."),
            "device": str(family.pipe.device),
            "attention_backend": attention_backend(transformer),
            **family.facts(),
        },
        "prompts": list(request.prompts),
        "seed": request.seed,
        "steps": len(request.schedule),
        "layout": request.layout.to_dict(),
        **family.call_facts(request.arguments),
        "arguments": {k: described(v) for k, v in request.arguments.items() if k not in skipped},
        "interventions": [intervention.describe() for intervention in interventions],
    }
    if request.remarks:
        facts["remarks"] = list(request.remarks)
    images: list[dict[str, Any]] = [
        {"sha256": image_digest(image), "width": image.width, "height": image.height}
        for image in request.images
    ]
    for facts_of, own, size in zip(images, request.images, request.given_sizes, strict=True):
        if own.size != size:
            facts_of["scaled_by_the_probe_from"] = list(size)
    if images:
        facts |= {"image": images[0]} if len(images) == 1 else {"images": images}
    if recorder is not None:
        facts["recorded"] = {
            "blocks": recorder.blocks,
            "steps": recorder.steps,
            "heads": recorder.heads,
            "queries": recorder.pair[0],
            "mass_table": recorder.mass_table,
        }
    return facts
