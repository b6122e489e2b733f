"""Skip whole forwards of the transformer, and take their velocity from the last computed step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recast_probe._utils.checks import check_indices, check_int, share_of
from recast_probe.errors import InputError
from recast_probe.interventions.base import CallHook, Intervention, RunContext
from recast_probe.interventions.needs import Needs
from recast_probe.layout import TokenLayout

if TYPE_CHECKING:
    from recast_probe.pipelines.base import Family


@dataclass(frozen=True)
class StepCache(Intervention):
    """Compute some steps only; in the others no block runs.

    A skipped step takes the velocity of the last computed one, which the transformer predicts for
    every generation token. Nothing else is kept, so the number of reference tokens may change from
    step to step. With Euler's scheduler, holding a velocity is the same as taking fewer and longer
    steps, so compare it with such a run as well. The first and the last step are always computed,
    and so is every step that another intervention reads or stores. With true classifier-free
    guidance every branch has its own.

    Attributes:
        computed: how many steps are computed, spread evenly: a number, or a share below 1 of the
            run's steps; or which ones. None computes all, or leaves it to the threshold.
        threshold: skip while the change since the last computed step is below this. The change is
            the sum over steps of the relative L1 distance, ``mean |m - m'| / mean |m'|``, between
            the modulated inputs m of the first block at generation tokens in two consecutive steps:
            the indicator of TeaCache (arXiv 2411.19108) for FLUX, without its polynomial, which is
            fitted to one model. Not together with ``computed``.
        extrapolate: continue the line through the velocities of the last two computed steps, in
            sigma, instead of holding the last one. Both are kept.

    Raises:
        InputError: a setting out of its range.

    Examples:
        >>> StepCache(computed=4).computed_steps(10)
        [0, 3, 6, 9]
    """

    computed: int | float | tuple[int, ...] | None = None
    threshold: float | None = None
    extrapolate: bool = False

    def __post_init__(self) -> None:
        if self.computed is not None and self.threshold is not None:
            raise InputError("Give StepCache either computed steps or a threshold.")
        if self.threshold is not None and not 0 < self.threshold < float("inf"):
            raise InputError(f"threshold must be a number above 0, not {self.threshold!r}.")
        if isinstance(self.computed, Sequence | np.ndarray):
            listed = sorted({check_int("computed", step, 0) for step in self.computed})
            object.__setattr__(self, "computed", tuple(listed))
        elif isinstance(self.computed, float):
            if not 0 < self.computed < 1:
                raise InputError(f"A share of steps lies between 0 and 1, not {self.computed}.")
        elif self.computed is not None:
            object.__setattr__(self, "computed", check_int("computed", self.computed, 1))

    def computed_steps(self, steps: int, demanded: Collection[int] = ()) -> list[int]:
        """Steps that are computed whatever the threshold says, ascending.

        Args:
            steps: of the run.
            demanded: steps that must be among them.

        Raises:
            InputError: more than the run has, or too few for what is demanded.
        """
        fixed = {0, steps - 1} | set(demanded)
        if self.computed is None:
            return sorted(fixed) if self.threshold is not None else list(range(steps))
        if isinstance(self.computed, tuple):
            chosen = set(check_indices("computed", self.computed, steps, of="steps", empty=True))
            missing = sorted(set(demanded) - chosen - fixed.difference(demanded))
            if missing:
                raise InputError(
                    f"Steps {missing} are read or stored by another intervention or by the "
                    "profile, so they must be computed; add them to StepCache's list."
                )
            return sorted(chosen | {0, steps - 1})
        count = self.computed
        if isinstance(count, float):
            # a short run computes at least the steps that are fixed
            count = max(share_of(steps, count), len(fixed))
        if not len(fixed) <= count <= steps:
            raise InputError(
                f"computed={self.computed} does not fit this run: of its {steps} steps "
                f"{sorted(fixed)} must be computed, since they are first, last, read or stored."
            )
        return _spread(count, steps, fixed)

    def needs(self, run: RunContext) -> Needs:
        return Needs(
            computes=lambda demanded: self.computed_steps(run.steps, demanded),
            once="skip the work",
        )

    @contextmanager
    def attached(self, family: Family, run: RunContext) -> Iterator[SkippedSteps]:
        skipped = SkippedSteps(
            self,
            run,
            family.block_lists(),
            lambda inputs: family.modulated_input(inputs, run.layout),
            lambda output: family.generation_rows(output, run.layout),
        )
        hook = family.transformer.register_forward_hook(skipped.after_forward)
        try:
            yield skipped
        finally:
            hook.remove()
            skipped.clear()


def _spread(count: int, steps: int, fixed: set[int]) -> list[int]:
    """So many steps, as even as they can be with the fixed ones among them."""
    chosen = (
        set(np.linspace(0, steps - 1, count).round().astype(int).tolist()) if count > 1 else {0}
    )
    for step in sorted(fixed - chosen):
        free = sorted(chosen - fixed)
        chosen.remove(min(free, key=lambda other: abs(other - step)))
        chosen.add(step)
    return sorted(chosen)


@dataclass
class BranchCache:
    """What is kept of one branch.

    Attributes:
        velocities: step and velocity (batch, generation token, channel) of the last computed
            steps, at most two.
        inputs: of the last call.
        modulated: the first block's modulated input in the last call, once it was asked for.
        change: accumulated since the last computed step.
        computed: steps that were computed.
    """

    velocities: list[tuple[int, Tensor]] = field(default_factory=list)
    inputs: Mapping[str, Any] | None = None
    modulated: Tensor | None = None
    change: float = 0.0
    computed: list[int] = field(default_factory=list)


class SkippedSteps(CallHook):
    """Decides in one run which calls are skipped, and answers in their place.

    While a call is skipped the transformer's lists of blocks are empty. It only embeds its inputs
    and projects them, which costs next to nothing, and ``after_forward`` replaces the output.
    """

    def __init__(
        self,
        settings: StepCache,
        run: RunContext,
        lists: Sequence[tuple[torch.nn.Module, str]],
        modulated: Callable[[Mapping[str, Any]], Tensor],
        generation: Callable[[Tensor], Tensor],
    ) -> None:
        self._settings, self._run = settings, run
        self._modulated, self._generation = modulated, generation
        self._lists = [(owner, name, getattr(owner, name)) for owner, name in lists]
        self._fixed = set(settings.computed_steps(run.steps, run.demanded))
        self._branches: dict[str, BranchCache] = {}
        self._skipping = False

    @property
    def _cache(self) -> BranchCache:
        return self._branches.setdefault(self.branch, BranchCache())

    def begin_call(self, step: int, branch: str, layout: TokenLayout) -> None:
        super().begin_call(step, branch, layout)
        self._show()

    def begin_inputs(self, inputs: Mapping[str, Any]) -> None:
        cache = self._cache
        skipping = self.step not in self._fixed
        if self._settings.threshold is not None:
            skipping = self._changed_little(cache, inputs) and skipping
        if skipping:
            self._hide()
        else:
            cache.change = 0.0
            cache.computed.append(self.step)
        self._skipping = skipping

    def _changed_little(self, cache: BranchCache, inputs: Mapping[str, Any]) -> bool:
        """Add the change since the last call, and compare it with the threshold."""
        last, cache.inputs = cache.inputs, dict(inputs)
        if last is None:
            return False
        # not before the second call: an offloaded model is on its device by then
        before = self._modulated(last) if cache.modulated is None else cache.modulated
        cache.modulated = self._modulated(inputs)
        difference = (cache.modulated.float() - before.float()).abs().mean()
        cache.change += float(difference / before.float().abs().mean())
        assert self._settings.threshold is not None
        return cache.change < self._settings.threshold

    def skips(self) -> bool:
        return self._skipping

    def after_forward(self, _: Any, __: Any, output: Any) -> Any:
        """Keep the velocity of a computed call; give a skipped call its velocity."""
        if self.step < 0:
            return None
        if not self._skipping:
            states = output if isinstance(output, Tensor) else output[0]
            velocity = self._generation(states).detach().clone()
            kept = 2 if self._settings.extrapolate else 1
            self._cache.velocities = [*self._cache.velocities, (self.step, velocity)][-kept:]
            return None
        self._show()
        self._skipping = False
        made = (output if isinstance(output, Tensor) else output[0]).clone()
        self._generation(made)[:] = self._velocity()
        if isinstance(output, Tensor):
            return made
        return (made,) if isinstance(output, tuple) else type(output)(made)

    def _velocity(self) -> Tensor:
        velocities, sigmas = self._cache.velocities, self._run.sigmas
        step, last = velocities[-1]
        if len(velocities) < 2:
            return last
        earlier, first = velocities[0]
        way = (sigmas[self.step] - sigmas[step]) / (sigmas[step] - sigmas[earlier])
        return last + float(way) * (last - first)

    def _hide(self) -> None:
        for owner, name, _ in self._lists:
            setattr(owner, name, torch.nn.ModuleList())

    def _show(self) -> None:
        for owner, name, blocks in self._lists:
            if getattr(owner, name) is not blocks:
                setattr(owner, name, blocks)

    def clear(self) -> None:
        self._show()
        for cache in self._branches.values():
            cache.velocities, cache.inputs, cache.modulated = [], None, None

    def facts(self) -> dict[str, Any]:
        return {
            "run": {
                "computed_steps": {name: each.computed for name, each in self._branches.items()}
            }
        }
