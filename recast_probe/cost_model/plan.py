"""What a run computes in each step, and the work of it: the plan that a bound is counted from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recast_probe.cost_model.config import TransformerConfig
from recast_probe.cost_model.work import Work, readout_work, step_work
from recast_probe.errors import InputError


@dataclass(frozen=True)
class StepPlan:
    """One denoising step.

    Attributes:
        reference: reference tokens that are attended to.
        reused: the keys and values of these come from an earlier step; their rows are not computed.
        computed: False where the transformer is not called at all.
        fresh: in a step of token-wise caching, the share of generation tokens that go through the
            MLPs again, one for all blocks or by kind of block ("double", "single"); attention is
            not computed then. None in any other step.
        read: generation-to-reference attention is read in every block, once more for all of them.

    Examples:
        >>> StepPlan(reference=1024).computed
        True
    """

    reference: int
    reused: bool = False
    computed: bool = True
    fresh: float | Mapping[str, float] | None = None
    read: bool = False

    def fresh_blocks(self, config: TransformerConfig) -> dict[str, float]:
        """By kind of block, how many blocks' generation tokens are fresh, none with no caching.

        Raises:
            InputError: no share is given for a kind of block that there is.
        """
        if self.fresh is None:
            return {}
        counts = {"double": config.double_blocks, "single": config.single_blocks}
        counts = {kind: count for kind, count in counts.items() if count}
        shares = (
            self.fresh if isinstance(self.fresh, Mapping) else dict.fromkeys(counts, self.fresh)
        )
        if missing := [kind for kind in counts if kind not in shares]:
            raise InputError(
                f"The shares of fresh tokens are of {', '.join(shares) or 'no'} blocks, and the "
                f"model has {missing[0]} ones, too."
            )
        return {kind: count * shares[kind] for kind, count in counts.items()}


@dataclass(frozen=True)
class RunPlan:
    """A run; each method returns a copy of the plan with one more change.

    Attributes:
        text, generation, reference: tokens of the full sequence.
        steps: what happens in each step, highest noise first.
        calls: transformer calls in a step; 2 with true classifier-free guidance.
        images: images in a batch.
        float8_linears: linear layers on tokens multiply in 8 bits. This changes the model.

    Examples:
        >>> plan = RunPlan.full(512, 4096, 4096, steps=4).keep(1024).read(0)
        >>> [step.reference for step in plan.steps], plan.steps[0].read
        ([4096, 1024, 1024, 1024], True)
    """

    text: int
    generation: int
    reference: int
    steps: tuple[StepPlan, ...]
    calls: int = 1
    images: int = 1
    float8_linears: bool = False

    @classmethod
    def full(
        cls, text: int, generation: int, reference: int, steps: int, *, calls: int = 1, **more: Any
    ) -> RunPlan:
        """Every token in every step.

        Raises:
            InputError: no steps, or a negative number of tokens.
        """
        if steps < 1 or min(text, generation, reference) < 0:
            raise InputError(
                f"A run has at least 1 step and no negative number of tokens, not {steps} steps "
                f"with {text}, {generation} and {reference} tokens."
            )
        plan = (StepPlan(reference),) * steps
        return cls(text, generation, reference, plan, calls, **more)

    def keep(self, tokens: int | Sequence[int], start: int = 1) -> RunPlan:
        """Attend to so many reference tokens from step `start` on: one number, or one a step.

        Raises:
            InputError: more tokens than there are, or too few numbers.
        """
        counts = [tokens] * len(self.steps) if isinstance(tokens, int) else [int(x) for x in tokens]
        if len(counts) != len(self.steps):
            raise InputError(f"{len(counts)} budgets do not fit {len(self.steps)} steps.")
        if min(counts) < 0 or max(counts[start:], default=0) > self.reference:
            raise InputError(
                f"A budget of {min(counts)} to {max(counts)} tokens does not fit a reference of "
                f"{self.reference}."
            )
        return self._each(
            lambda index, step: replace(step, reference=counts[index]) if index >= start else step
        )

    def reuse(self, start: int = 1, refresh: Iterable[int] = ()) -> RunPlan:
        """Take the reference's keys and values from an earlier step from `start` on.

        Args:
            refresh: steps that compute the full reference again.

        Raises:
            InputError: a start at which nothing has been computed yet.
        """
        if not 1 <= start <= len(self.steps):
            raise InputError(
                f"Keys and values can be reused from step 1 to {len(self.steps) - 1}, not {start}."
            )
        again = set(refresh)
        return self._each(
            lambda index, step: (
                replace(step, reference=self.reference, reused=False)
                if index in again
                else replace(step, reused=index >= start)
            )
        )

    def mark_reused(self, steps: Iterable[int]) -> RunPlan:
        """The reference's keys and values are not computed in exactly these steps."""
        chosen = set(steps)
        return self._each(lambda index, step: replace(step, reused=index in chosen))

    def compute(self, steps: int | Iterable[int]) -> RunPlan:
        """Call the transformer in these steps only; a number means so many, evenly spread.

        Raises:
            InputError: the first step is not among them, or there are not so many.
        """
        total = len(self.steps)
        if isinstance(steps, int):
            if not 1 <= steps <= total:
                raise InputError(f"{steps} computed steps do not fit a run of {total} steps.")
            steps = np.round(np.linspace(0, total - 1, steps)).astype(int).tolist()
        chosen = {int(step) for step in np.atleast_1d(np.asarray(steps))}
        if 0 not in chosen or max(chosen) >= total or min(chosen) < 0:
            raise InputError(f"Computed steps lie within the {total} of a run and include step 0.")
        return self._each(lambda index, step: replace(step, computed=index in chosen))

    def cache_tokens(
        self, full_steps: Iterable[int], fresh: float | Mapping[str, float]
    ) -> RunPlan:
        """Token-wise caching: compute whole steps only here, and in others only fresh tokens.

        Args:
            fresh: share of generation tokens, 0 to 1, one for all blocks or by kind of block.
        """
        whole = set(full_steps)
        return self._each(
            lambda index, step: step if index in whole else replace(step, fresh=fresh)
        )

    def read(self, *steps: int) -> RunPlan:
        """Read generation-to-reference attention in every block of these steps."""
        return self._each(lambda index, step: replace(step, read=step.read or index in steps))

    def in_float8(self) -> RunPlan:
        """Linear layers in 8 bits, which computes another function than the model's."""
        return replace(self, float8_linears=True)

    @property
    def computed(self) -> tuple[int, ...]:
        """Steps in which the transformer is called."""
        return tuple(index for index, step in enumerate(self.steps) if step.computed)

    def work(self, config: TransformerConfig) -> Work:
        """FLOP of the transformer over the whole run."""
        total = Work(0.0, 0.0)
        for step in self.steps:
            total = total + self.step_work(config, step)
        return total

    def step_work(self, config: TransformerConfig, step: StepPlan) -> Work:
        """FLOP of one step, over all calls and images."""
        if not step.computed:
            return Work(0.0, 0.0)
        if step.fresh is None:
            work = step_work(config, self.text, self.generation, step.reference, reused=step.reused)
        else:
            work = self._cached_step(config, step)
        reading = 0.0
        if step.read:
            reading = readout_work(config, self.generation, step.reference)
        share = self.calls * self.images
        # layers that act on one vector do so for each image as well
        return Work(
            work.linear * share, (work.attention + reading) * share, work.modulation * share
        )

    def _cached_step(self, config: TransformerConfig, step: StepPlan) -> Work:
        """Fresh tokens in the blocks; embedders, output and modulation run as in any step."""
        whole = step_work(config, self.text, self.generation, step.reference, reused=step.reused)
        rows = self.text + self.generation + (0 if step.reused else step.reference)
        ends = whole.linear - 2.0 * config.blocks * config.block_linear * rows
        each = config.fresh_linear
        fresh = sum(each[kind] * count for kind, count in step.fresh_blocks(config).items())
        return Work(ends + 2.0 * fresh * self.generation, 0.0, whole.modulation)

    def _each(self, change) -> RunPlan:  # type: ignore[no-untyped-def]
        steps = tuple(change(index, step) for index, step in enumerate(self.steps))
        return replace(self, steps=steps)
