"""One reversible call that makes a pipeline faster; afterwards it is called as always."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch

from recast_probe._utils.suggestions import did_you_mean
from recast_probe.acceleration.fp8 import use_fp8_linears
from recast_probe.acceleration.image_observer import ImageObserver
from recast_probe.errors import InputError, UnsupportedPipelineError, VerificationError
from recast_probe.interventions.base import Intervention, as_interventions
from recast_probe.interventions.methods import METHODS, REUSING, WITHOUT_BUDGET
from recast_probe.interventions.methods import method as named
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines import find_family
from recast_probe.runs.attach_hooks import OTHER_TRANSFORMER, HookedCalls
from recast_probe.runs.callers import OneThread, calling_pipeline
from recast_probe.runs.pipeline_check import check_pipeline
from recast_probe.selection.budget_language import budget_of
from recast_probe.selection.budgets import Aligned
from recast_probe.selection.mass import MassShare

# by default, keys and values are computed again every so many steps
REFRESH = 4
# FLUX.1 Kontext's own, to try settings on before there is an image
_USUAL = TokenLayout(512, Grid(64, 64), (Grid(64, 64),))


class Acceleration:
    """A pipeline whose images are made with interventions, until ``restore`` is called.

    Every image starts afresh, and what was kept for it is released after its last step. An image
    without a reference is made as without acceleration. Also a context manager, which restores the
    pipeline at its end.

    Attributes:
        pipe: the pipeline; it is called as always.
        family: its family.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> pipe, image = tiny.build_tiny_pipeline(), tiny.tiny_image()
        >>> accelerated = rp.accelerate(pipe)
        >>> accelerated
        Acceleration(FluxKontextPipeline, reuse, in place)
        >>> accelerated.restore() is pipe
        True
    """

    def __init__(
        self,
        pipe: Any,
        choose: Callable[[TokenLayout], Sequence[Intervention]],
        name: str,
        fp8: bool = False,
    ) -> None:
        self.pipe, self.family = pipe, find_family(pipe, traced=False)
        self._choose, self._name = choose, name
        if name in REUSING and self.family.caches_reference:
            raise UnsupportedPipelineError(
                f"{self.family.name} computes its reference tokens once and reuses their keys and "
                f"values by itself, so method={name!r} has nothing to do; choose another one, such "
                "as method='recast'."
            )
        check_pipeline(self.family, "hooks")
        self._session: ImageObserver | None = None
        self._timesteps: torch.Tensor | None = None
        self._restored, self._fp8 = False, fp8
        self._hooked = HookedCalls(self.family, self)
        self._one_thread = OneThread(pipe)
        self._weights = ExitStack()
        if fp8:
            try:
                self._weights.callback(use_fp8_linears(self.family.block_modules()))
            except BaseException:
                self._hooked.remove()
                raise

    @property
    def report(self) -> dict[str, Any] | None:
        """What was done to the last image, ready for JSON; None before the first and for an image
        without a reference.

        Raises:
            UnsupportedPipelineError: another transformer was put in, which nothing was done to.
        """
        if not (self._restored or self._hooked.in_place):
            raise UnsupportedPipelineError(OTHER_TRANSFORMER)
        if self._session is None:
            return None
        return {**self._session.report(), "fp8_linears": self._fp8}

    def restore(self) -> Any:
        """Take off every hook and processor; a second time does nothing.

        Returns:
            The pipeline, as it was before.
        """
        self._hooked.remove()
        self._weights.close()
        if self._session is not None:
            self._session.close()
        self._restored = True
        return self.pipe

    def begin(self, call: int, inputs: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """A call of the transformer; see ``CallHandler``.

        Raises:
            UnsupportedPipelineError: the pipeline is not as it was when it was accelerated, or
                another one calls its transformer.
            VerificationError: two threads call the pipeline at once.
        """
        caller = calling_pipeline()
        if caller is not None and caller is not self.pipe:
            raise UnsupportedPipelineError(
                f"The transformer is accelerated as part of a {type(self.pipe).__name__}, and a "
                f"{type(caller).__name__} that shares it has called it. Call restore() of what "
                "accelerate() gave, or leave its with block first."
            )
        self._check_thread()
        # every image gets new timesteps, and the scheduler has no step index before its first step
        timesteps = self.pipe.scheduler.timesteps
        if timesteps is not self._timesteps:
            if self._session is not None:
                self._session.close()
            self._session, self._timesteps = None, None
            self._hooked.check()
            self._timesteps = timesteps
            layout = self.family.observed_layout(inputs)
            if layout.reference_tokens:
                chosen = self._choose(layout)
                self._session = ImageObserver(self.family, layout, inputs, chosen)
        return None if self._session is None else self._session.begin(call, inputs)

    def blocks(self) -> Sequence[int]:
        """Blocks whose attention is read or changed in this call."""
        return () if self._session is None else self._session.blocks()

    def operations(self, block: int) -> tuple[str, ...]:
        """Where attention of a block of ``blocks`` is found in this call."""
        assert self._session is not None
        return self._session.operations(block)

    def only_stored_keys(self, block: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Keys and values of an earlier step, where a block needs nothing else."""
        return None if self._session is None else self._session.only_stored_keys(block)

    def attend(
        self, block: int, arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> torch.Tensor:
        """Attention of a block of ``blocks``."""
        assert self._session is not None
        return self._session.attend(block, arguments, options)

    def end(self) -> bool:
        """The call is done; never the end of a run."""
        self._check_thread()
        return self._session is not None and self._session.end()

    def _check_thread(self) -> None:
        if self._one_thread.disturbed():
            raise VerificationError(
                "The accelerated pipeline was called in two threads at once, and it has one "
                "scheduler and one set of kept keys. Make one image after the other."
            )

    def __enter__(self) -> Acceleration:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.restore()

    def __repr__(self) -> str:
        state = "restored" if self._restored else "in place"
        return f"Acceleration({type(self.pipe).__name__}, {self._name}, {state})"


def accelerate(
    pipe: Any,
    method: str = "reuse",
    budget: Any = None,
    *,
    refresh: int | Sequence[int] | None = None,
    computed: int | float | Sequence[int] | None = None,
    align: int | None = None,
    blocks: Any = "paper",
    seed: int = 0,
    interventions: Intervention | Sequence[Intervention] | None = None,
    fp8: bool = False,
) -> Acceleration:
    """Make a pipeline faster in place, by hooks and attention processors alone.

    ``pipe(...)`` is called as always afterwards, any number of times, with any arguments: each
    image begins anew. No module is replaced, so LoRA, quantised and offloaded transformers go on as
    they are. ``pipe.transformer.compile_repeated_blocks()`` works before and after; steps that read
    or store then run uncompiled, and every other number of reference tokens compiles once more, so
    choose few budgets and ``align=64``.

    You set the seed as always: give the pipeline a ``generator``, and call ``torch.manual_seed``
    before where the scheduler draws noise in its steps; ``seed`` below is of methods that draw.

    By default all reference tokens stay, and their keys and values are computed in every fourth
    step only. On Pocket Kontext that keeps 98 % of the subject's identity, and reuse that is never
    refreshed 81 %; see "Quality against speed" in docs/findings-first-edition.md.

    Args:
        pipe: a built diffusers pipeline of a family whose attention can be hooked.
        method: one of ``METHODS`` that needs no mask.
        budget: how many reference tokens are attended to from step 1 on: 64, 0.25, "25%",
            "eq4:256:1024:2", or another budget of ``recast_probe.budget``. None: all of them for
            the methods that reuse, Eq. 4 scaled to the reference for the others.
        refresh: for the methods that reuse: store keys and values again in these steps, or every so
            many steps; 0 never does. None: every 4 steps.
        computed: for "reuse+step-cache": see ``StepCache``.
        align: round the number of tokens up to a multiple of this.
        blocks: what rankings that ask the model average over.
        seed: of the random methods.
        interventions: these instead of a named method; the other arguments are left out then.
        fp8: also compute the blocks' linear layers in 8-bit floating point. This changes the model
            until it is restored; see ``use_fp8_linears``.

    Raises:
        InputError: an argument that cannot be used.
        UnsupportedPipelineError: the pipeline is not known, accelerated already, or compiled as a
            whole.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> pipe, image = tiny.build_tiny_pipeline(), tiny.tiny_image()
        >>> with accelerate(pipe, refresh=0) as accelerated:
        ...     made = pipe(image=image, prompt="a cat", num_inference_steps=2).images[0]
        >>> accelerated
        Acceleration(FluxKontextPipeline, reuse, restored)
    """
    if interventions is not None:
        given = as_interventions(interventions)
        return Acceleration(pipe, lambda layout: given, f"{len(given)} interventions", fp8)
    if method not in METHODS or method == "mask-oracle":
        known = ", ".join(name for name in METHODS if name != "mask-oracle")
        raise InputError(
            f"There is no method {method!r} for accelerate; there is {known}."
            f"{did_you_mean(method, METHODS)}"
        )

    def choose(layout: TokenLayout) -> list[Intervention]:
        chosen = _budget_for(budget, layout.reference_tokens, align, method)
        return named(
            method,
            chosen,
            layout,
            blocks=blocks,
            seed=seed,
            refresh=refresh,
            computed=computed,
        )

    if method in REUSING:
        never = isinstance(refresh, int) and refresh == 0
        refresh = None if never else REFRESH if refresh is None else refresh

    # settings that are wrong for every image are errors here and not in the first image
    choose(_USUAL)
    return Acceleration(pipe, choose, method, fp8)


def _budget_for(budget: Any, tokens: int, align: int | None, method: str) -> Any:
    """The budget for a reference of so many tokens; None for all of them."""
    if budget is None:
        if method in (*REUSING, *WITHOUT_BUDGET):
            return None
        budget = "eq4"
    if isinstance(budget, MassShare):
        if align is not None:
            raise InputError(f"{budget!r} is not known before the run, so it cannot be aligned.")
        return budget
    found = budget_of(budget, tokens)
    return found if align is None else Aligned(found, align, tokens)
