"""Attaching to a pipeline by PyTorch's hooks and attention processors, without nnsight.

The handlers are those of ``attach_nnsight``. No module is replaced, so LoRA, offloading,
quantisation and compiled blocks go on as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch

from recast_probe._utils.compat import chosen_backend
from recast_probe.errors import UnsupportedPipelineError, VerificationError
from recast_probe.pipelines.base import Family
from recast_probe.pipelines.compiled import is_compiled
from recast_probe.pipelines.hooked_processor import hooked, site_name
from recast_probe.runs.attach_nnsight import CallHandler, miscounted
from recast_probe.runs.pipeline_check import check_computation, check_replaceable

OTHER_TRANSFORMER = (
    "Another transformer was put into the pipeline after it was accelerated, and nothing is done "
    "to that one; call restore() first, and accelerate the pipeline again."
)


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

    def __init__(self, family: Family, handler: HookHandler) -> None:
        self._handler, self._transformer = handler, family.transformer
        self._family, self._pipeline = family, family.pipe
        sites = [[site[1:] for site in call.sites] for call in family.attention_calls()]
        self._blocks = [
            (module, hooked(module.processor, places))
            for module, places in zip(self._modules(), sites, strict=True)
        ]
        for module, processor in self._blocks:
            module.processor = processor
        self._hooks = [
            self._transformer.register_forward_pre_hook(self._before, with_kwargs=True),
            self._transformer.register_forward_hook(self._after, always_call=True),
        ]
        self._eager, self._positions = ExitStack(), ExitStack()
        self._positions.enter_context(family.keep_rotary_positions())
        self.calls = 0
        self._unreached: set[int] = set()

    def _modules(self) -> list[Any]:
        """The attention module of every block, as they are now."""
        calls = self._family.attention_calls()
        return [self._transformer.get_submodule(call.module) for call in calls]

    @property
    def in_place(self) -> bool:
        """Whether the pipeline still has the transformer that the hooks are on."""
        return getattr(self._pipeline, "transformer", None) is self._transformer

    def check(self) -> None:
        """Check before another image that the pipeline is as it was when the hooks were put in.

        Raises:
            UnsupportedPipelineError: it is not; the message says what to do.
        """
        if not self.in_place:
            raise UnsupportedPipelineError(OTHER_TRANSFORMER)
        check_computation(self._family)
        modules = self._modules()
        if len(modules) != len(self._blocks) or any(
            module is not hooked for module, (hooked, _) in zip(modules, self._blocks, strict=True)
        ):
            raise UnsupportedPipelineError(
                "The transformer's blocks were replaced while the pipeline is accelerated; call "
                "restore() first, and accelerate it again."
            )
        self._check_processors()
        check_replaceable(
            self._family.attention_calls(),
            [processor.original for _, processor in self._blocks],
            written=self._family.own,
        )

    def _check_processors(self) -> None:
        replaced = [
            module for module, processor in self._blocks if module.processor is not processor
        ]
        if replaced:
            raise UnsupportedPipelineError(
                f"{len(replaced)} of {len(self._blocks)} attention processors were replaced while "
                "the pipeline is accelerated or observed by hooks; call restore() or leave the "
                "with block first."
            )

    def remove(self) -> None:
        """Everything as it was before; a second time does nothing."""
        self._eager.close()
        self._positions.close()
        for hook in self._hooks:
            hook.remove()
        for module, processor in self._blocks:
            if module.processor is processor:
                # an attention backend that was set in the meantime stays
                if chosen_backend(processor.original) != chosen_backend(processor):
                    processor.original._attention_backend = processor._attention_backend
                module.processor = processor.original
        self._hooks, self._blocks = [], []

    def _before(
        self, _: Any, arguments: tuple[Any, ...], inputs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._eager.close()
        self._check_processors()
        edited = self._handler.begin(self.calls, inputs)
        self.calls += 1
        asked = set(self._handler.blocks())
        self._unreached, eager = set(), False
        for block, (_, processor) in enumerate(self._blocks):
            processor.attend, processor.earlier = None, None
            if block in asked:
                processor.site = site_name(self._handler.operations(block)[1:])
                processor.earlier = self._handler.only_stored_keys(block)
                if processor.earlier is None:
                    processor.attend, eager = self._attend(block), True
                    self._unreached.add(block)
        if eager and _compiled(self._transformer):
            # what reads or stores is not part of a compiled graph
            self._eager.enter_context(torch.compiler.set_stance("force_eager"))
        return None if edited is None else (arguments, dict(edited))

    def _attend(self, block: int) -> Callable[..., torch.Tensor]:
        def attend(arguments: Sequence[Any], options: Mapping[str, Any]) -> torch.Tensor:
            self._unreached.discard(block)
            return self._handler.attend(block, arguments, options)

        return attend

    def _after(self, _: Any, __: Any, output: Any) -> None:
        self._eager.close()
        for _, processor in self._blocks:
            processor.attend, processor.earlier = None, None
        if output is None:
            return
        if self._unreached:
            raise VerificationError(
                f"Attention of block {min(self._unreached)} was not reached in transformer call "
                f"{self.calls - 1}; something else ran in its place."
            )
        if self._handler.end():
            raise _StoppedEarly


class _StoppedEarly(Exception):  # noqa: N818 - no error
    """Nothing after this call is needed."""


def _compiled(transformer: torch.nn.Module) -> bool:
    return any(map(is_compiled, transformer.modules()))


def hook_calls(family: Family, calls: int, run: Callable[[], Any], handler: HookHandler) -> Any:
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
    hooked = HookedCalls(family, handler)
    try:
        output = run()
    except _StoppedEarly:
        return None
    finally:
        hooked.remove()
    if hooked.calls != calls:
        raise miscounted(family.pipe, hooked.calls, calls)
    return output
