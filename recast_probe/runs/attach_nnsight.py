"""Attaching to an unmodified pipeline with nnsight, and leaving it untouched afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from nnsight import NNsight

from recast_probe._utils.compat import calls_seen, chosen_backend, traced_module
from recast_probe.errors import UnsupportedPipelineError, VerificationError
from recast_probe.pipelines.base import AttentionCall

_ABSENT = object()
_NNSIGHT_ATTRIBUTES = ("forward", "__nnsight__")


class CallHandler(Protocol):
    """Who decides what happens in each call of the transformer."""

    def begin(self, call: int, inputs: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The transformer is about to run; returns other inputs, or None to leave them."""

    def blocks(self) -> Sequence[int]:
        """Blocks whose attention is computed by ``attend`` in this call, ascending."""

    def attend(
        self, block: int, arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> torch.Tensor:
        """The attention output of one block, in place of the pipeline's own where it can be
        replaced."""

    def operations(self, block: int) -> tuple[str, ...]:
        """Where attention of a block is found in this call; see ``AttentionCall``."""

    def end(self) -> bool:
        """All that was asked of this call is done; True when nothing after it is needed."""


@contextmanager
def instrumented(module: torch.nn.Module) -> Iterator[NNsight]:
    """Wrap a module for nnsight, and take every trace of it off again on the way out.

    nnsight installs its controllers as instance attributes and leaves them there. They are removed
    here, also after an exception or Ctrl-C, so that the module is as it was before.
    """
    before = [
        (part, {name: part.__dict__.get(name, _ABSENT) for name in _NNSIGHT_ATTRIBUTES})
        for part in module.modules()
    ]
    try:
        yield NNsight(module)
    finally:
        for part, attributes in before:
            if attributes["__nnsight__"] is not _ABSENT:
                continue  # another nnsight wrapper, installed before this one
            for name, value in attributes.items():
                if value is _ABSENT:
                    part.__dict__.pop(name, None)
                else:
                    part.__dict__[name] = value


def _attention_operation(model: NNsight, module: str, operations: Sequence[str]) -> Any:
    """Follow the operations of a call down to attention; only inside a trace."""
    operation = model.get(module)
    for name in operations:
        operation = getattr(operation.source, name)
    return operation


@contextmanager
def _reached(block: int, call: int, module: str) -> Iterator[None]:
    """Say which block it was where nnsight finds no call of attention."""
    try:
        yield
    except Exception as error:
        own = isinstance(error, AttributeError) or type(error).__module__.startswith("nnsight.")
        if not own:
            raise
        if type(error).__name__ == "OutOfOrderError":
            raise VerificationError(
                f"Attention of block {block} ({module}) was not reached in transformer call "
                f"{call}: {error}. The block attends elsewhere, or in another order of blocks."
            ) from error
        raise UnsupportedPipelineError(
            f"Attention of block {block} ({module}) was not reached in transformer call {call}: "
            f"{error}. Something else runs in its place; set diffusers' own processor with "
            "pipe.transformer.set_attn_processor()."
        ) from error


def miscounted(pipeline: Any, made: int, expected: int) -> VerificationError:
    """The error for a pipeline that called its transformer another number of times."""
    counted = f"The pipeline called its transformer {made} times, and {expected} calls were "
    if getattr(pipeline, "interrupt", False):
        return VerificationError(
            f"The pipeline was interrupted: a callback set pipe._interrupt after {made} of "
            f"{expected} transformer calls. Leave the callback out, or ask for fewer steps."
        )
    if made < expected:
        return VerificationError(
            f"{counted}expected: something made the image in fewer, such as a cache that answers "
            "in the transformer's place, or a pipeline that skips steps. Switch it off."
        )
    return VerificationError(
        f"{counted}expected: the scheduler makes more steps than it is told, or the pipeline has "
        "a guidance of its own. Use diffusers' own pipeline and scheduler."
    )


def _projected(model: NNsight, call: AttentionCall) -> tuple[list[Any], dict[str, Any]]:
    """Query, key and value where they are projected, and options of attention; inside a trace.

    Each of them comes as (batch, token, head, dim), though keys and values leave their projection
    with their heads side by side.
    """
    outputs = [model.get(f"{call.module}.{name}").output for name in call.projections]
    batch, _, *heads = outputs[0].shape
    arguments = [output.reshape(batch, -1, *heads) for output in outputs]
    processor = traced_module(model.get(call.module)).processor
    return arguments, {"backend": chosen_backend(processor)}


def trace_calls(
    transformer: torch.nn.Module,
    attention_calls: Sequence[AttentionCall],
    calls: int,
    run: Callable[[], Any],
    handler: CallHandler,
    pipeline: Any = None,
    unreadable: Mapping[int, str] | None = None,
) -> Any:
    """Run a pipeline and hand every call of its transformer to a handler.

    Attention of the handler's blocks is computed once, by the handler: nnsight skips the pipeline's
    own call and puts the handler's output in its place. Attention that is known by its projections
    only is computed once more beside the pipeline's own. All other blocks run as they are.

    Args:
        transformer: the module to trace.
        attention_calls: where each block computes attention, by block index.
        calls: how many times the run calls the transformer.
        run: calls the pipeline.
        handler: see CallHandler.
        pipeline: asked why, where the number of calls is another one.
        unreadable: blocks whose attention cannot be followed, each with the reason.

    Returns:
        What ``run`` returned, or None when the handler had it stopped early.

    Raises:
        VerificationError: the pipeline called the transformer another number of times.
        UnsupportedPipelineError: a block's attention cannot be followed, or was not reached.
    """
    outcome: list[Any] = []
    done: list[int] = []

    def run_pipeline(_: bool) -> None:
        outcome.append(run())

    with instrumented(transformer) as model:
        # the True is only there because a trace without any input would wait for an invoke
        with model.trace(True, fn=run_pipeline) as tracer:
            # Every call from 0 on is visited and its inputs read first: a loop that starts later,
            # or reads an operation first, silently binds to the wrong call.
            for call in tracer.iter[:calls]:
                arguments, inputs = model.inputs
                edited = handler.begin(call, inputs)
                if edited is not None:
                    model.inputs = (arguments, dict(edited))
                for block in handler.blocks():
                    where = attention_calls[block]
                    if unreadable and block in unreadable:
                        raise UnsupportedPipelineError(unreadable[block])
                    with _reached(block, call, where.module):
                        if where.projections:
                            operation, given = None, _projected(model, where)
                        else:
                            path = handler.operations(block)
                            operation = _attention_operation(model, where.module, path)
                            given = operation.inputs
                    output = handler.attend(block, *given)
                    if operation is not None:
                        operation.skip(output)
                done.append(call)
                if handler.end():
                    tracer.stop()
        made = calls_seen(model)
    if outcome and made != calls:
        raise miscounted(pipeline, made, calls)
    if outcome and len(done) < calls:
        raise VerificationError(
            f"Attention was not reached in transformer call {len(done)}: the calls of it that were "
            "to be read did not come, and something else ran in their place."
        )
    return outcome[0] if outcome else None
