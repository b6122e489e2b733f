"""Attaching to a pipeline by PyTorch's hooks and attention processors, without nnsight.

The same handlers serve as in ``tracing``. No module is replaced, so LoRA, offloading, quantisation
and compiled blocks go on as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch

from recast_probe.errors import VerificationError
from recast_probe.families.base import Family
from recast_probe.tracing import CallHandler


class HookHandler(CallHandler, Protocol):
    """A handler that also knows which blocks need nothing but keys of an earlier step."""

    def only_stored_keys(self, block: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Keys and values to attend to besides a block's own, where nothing is read or changed."""


class HookedCalls:
    """Hooks on a transformer, and a processor in each of its blocks, until they are removed.

    Args:
        family, pipeline: whose transformer.
        handler: asked in every call.

    Raises:
        UnsupportedPipelineError: the family's attention cannot be hooked.
    """

    def __init__(self, family: Family, pipeline: Any, handler: HookHandler) -> None:
        self._handler, self._transformer = handler, family.transformer(pipeline)
        modules = [
            self._transformer.get_submodule(call.module)
            for call in family.attention_calls(pipeline)
        ]
        hooked = [family.hooked_processor(module.processor) for module in modules]
        self._blocks: list[Any] = list(zip(modules, hooked, strict=True))
        for module, processor in self._blocks:
            module.processor = processor
        self._hooks = [
            self._transformer.register_forward_pre_hook(self._before, with_kwargs=True),
            self._transformer.register_forward_hook(self._after, always_call=True),
        ]
        self._eager, self._positions = ExitStack(), ExitStack()
        self._positions.enter_context(family.following_positions(pipeline))
        self.calls = 0

    def remove(self) -> None:
        """Everything as it was before; a second time does nothing."""
        self._eager.close()
        self._positions.close()
        for hook in self._hooks:
            hook.remove()
        for module, processor in self._blocks:
            if module.processor is processor:
                # an attention backend that was set in the meantime stays
                if processor.original._attention_backend != processor._attention_backend:
                    processor.original._attention_backend = processor._attention_backend
                module.processor = processor.original
        self._hooks, self._blocks = [], []

    def _before(
        self, _: Any, arguments: tuple[Any, ...], inputs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._eager.close()
        edited = self._handler.begin(self.calls, inputs)
        self.calls += 1
        asked = set(self._handler.blocks())
        eager = False
        for block, (_, processor) in enumerate(self._blocks):
            processor.attend, processor.earlier = None, None
            if block in asked:
                processor.earlier = self._handler.only_stored_keys(block)
                if processor.earlier is None:
                    processor.attend, eager = self._attend(block), True
        if eager and _compiled(self._transformer):
            # what reads or stores is no part of a compiled graph
            self._eager.enter_context(torch.compiler.set_stance("force_eager"))
        return None if edited is None else (arguments, dict(edited))

    def _attend(self, block: int) -> Callable[..., torch.Tensor]:
        def attend(arguments: Sequence[Any], options: Mapping[str, Any]) -> torch.Tensor:
            return self._handler.attend(block, arguments, options)

        return attend

    def _after(self, _: Any, __: Any, output: Any) -> None:
        self._eager.close()
        for _, processor in self._blocks:
            processor.attend, processor.earlier = None, None
        if output is not None and self._handler.end():
            raise _StoppedEarly


class _StoppedEarly(Exception):  # noqa: N818 - no error
    """Nothing after this call is needed."""


def _compiled(transformer: torch.nn.Module) -> bool:
    return any(
        getattr(module, "_compiled_call_impl", None) is not None for module in transformer.modules()
    )


def hook_calls(
    family: Family, pipeline: Any, calls: int, run: Callable[[], Any], handler: HookHandler
) -> Any:
    """Run a pipeline and hand every call of its transformer to a handler, as ``trace_calls`` does.

    Args:
        calls: how many times the run calls the transformer.
        run: calls the pipeline.

    Returns:
        What ``run`` returned, or None when the handler had it stopped early.

    Raises:
        VerificationError: the pipeline called the transformer another number of times.
        UnsupportedPipelineError: the family's attention cannot be hooked.
    """
    hooked = HookedCalls(family, pipeline, handler)
    try:
        output = run()
    except _StoppedEarly:
        return None
    finally:
        hooked.remove()
    if hooked.calls != calls:
        raise VerificationError(
            f"The pipeline called its transformer {hooked.calls} times, and {calls} calls were "
            "expected; the recorded steps cannot be trusted."
        )
    return output
