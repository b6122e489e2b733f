"""What a saving must beat: controls that compute no more than it does, by the cost model.

Each control is as large as it can be with at most the method's FLOP. Text encoders and autoencoder
come on top of every arm and are not counted.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from recast_probe.cost_model import RunPlan, TransformerConfig
from recast_probe.datasets import Case
from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention
from recast_probe.interventions.merge import Merge
from recast_probe.interventions.prune import Prune
from recast_probe.interventions.recast import Recast
from recast_probe.interventions.reuse import ReuseReference
from recast_probe.interventions.step_cache import StepCache
from recast_probe.interventions.without_reference import WithoutReference
from recast_probe.layout import TokenLayout
from recast_probe.probe import Probe
from recast_probe.selection.budget_language import budget_of
from recast_probe.selection.rankings import random

FEWER, SMALLER, RANDOM, NONE = "fewer steps", "smaller reference", "random tokens", "no reference"
CONTROLS = (FEWER, SMALLER, RANDOM, NONE)
SCHEDULED = (Prune, Recast, Merge)


@dataclass(frozen=True)
class PlannedRun:
    """One run of one case, before it is made.

    Attributes:
        plan: what it computes.
        words: its size, such as "20 steps".
        interventions: what is done to it.
        reference: in place of the case's; None for the case's own.
        arguments: of the pipeline.
    """

    plan: RunPlan
    words: str
    interventions: tuple[Intervention, ...] = ()
    reference: Image.Image | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Denoising steps."""
        return len(self.plan.steps)


class NoControlError(InputError):
    """There is no such control at this cost, or for this pipeline."""


def planned(full: RunPlan, interventions: Sequence[Intervention]) -> RunPlan:
    """The plan of a run with these interventions, from their settings.

    Args:
        full: the run without them.

    Raises:
        InputError: an intervention whose work does not follow from its settings.

    Examples:
        >>> from recast_probe.interventions import ReuseReference
        >>> plan = planned(RunPlan.full(3, 16, 16, 6), [ReuseReference(refresh=4)])
        >>> [step.reused for step in plan.steps]
        [False, True, True, True, False, True]
    """
    steps, demanded, plan = len(full.steps), set[int](), full
    for each in interventions:
        if isinstance(each, WithoutReference):
            plan = plan.keep(0, start=0)
        elif isinstance(each, SCHEDULED):
            start = each.profile_step + 1 if isinstance(each, Recast) else each.start
            schedule = getattr(budget_of(each.budget, full.reference), "schedule", None)
            if schedule is None:
                raise _uncounted(each)
            plan = plan.keep(schedule(steps).tolist(), start)
        elif not isinstance(each, ReuseReference | StepCache):
            raise _uncounted(each)
    for each in interventions:
        if isinstance(each, Recast):
            if each.every is not None:
                raise _uncounted(each)
            demanded.add(each.profile_step)
            plan = plan.read(each.profile_step) if each.queries is not None else plan
        if isinstance(each, ReuseReference):
            demanded.update(each.storing_steps(steps))
            plan = plan.reuse(each.start, each.storing_steps(steps))
    for each in interventions:
        if isinstance(each, StepCache):
            if each.threshold is not None:
                raise _uncounted(each)
            plan = plan.compute(each.computed_steps(steps, demanded))
    return plan


def _uncounted(each: Intervention) -> InputError:
    return InputError(
        f"The work of {each!r} does not follow from its settings, so no control can be made of "
        "equal cost; give plan=, a function from the full run's RunPlan to the method's."
    )


def full_plan(probe: Probe, case: Case, layout: TokenLayout, steps: int) -> RunPlan:
    """Every token of a case in every step."""
    calls = len(probe.family.branch_names(probe.family.call_arguments({})))
    sizes = layout.text, layout.generation.size, layout.reference_tokens
    return RunPlan.full(*sizes, steps, calls=calls)


def control(
    name: str,
    probe: Probe,
    case: Case,
    config: TransformerConfig,
    full: RunPlan,
    method: PlannedRun,
) -> PlannedRun:
    """A control of a case, with at most the method's FLOP.

    Args:
        name: one of `CONTROLS`.
        full: the case's full run.

    Raises:
        NoControlError: there is none at this cost, or for this pipeline.
    """
    most = method.plan.work(config).total
    if name in (FEWER, NONE):
        whole = full if name == FEWER else full.keep(0, start=0)
        count = min(int(most / whole.step_work(config, whole.steps[0]).total), len(full.steps))
        if count < 1 or (name == FEWER and count == len(full.steps)):
            raise NoControlError("no smaller number of whole steps has the method's work")
        steps = f"{count} of {len(full.steps)} steps"
        words = steps if name == FEWER else f"0 tokens, {steps}"
        done = () if name == FEWER else (WithoutReference(),)
        return PlannedRun(replace(whole, steps=whole.steps[:count]), words, done)
    if name == RANDOM:
        return _random(case, config, full, method, most)
    tokens = _largest(full, config, most, start=0)
    picture, arguments, tokens = smaller_reference(probe, case, tokens)
    words = f"{tokens} of {full.reference} tokens, from an image of {picture.size}"
    return PlannedRun(full.keep(tokens, start=0), words, (), picture, arguments)


def _random(
    case: Case, config: TransformerConfig, full: RunPlan, method: PlannedRun, most: float
) -> PlannedRun:
    """The method's own budget, or the same number in every step but the first at equal FLOP."""
    budgets = [each.budget for each in method.interventions if isinstance(each, SCHEDULED)]
    saves_more = any(isinstance(each, ReuseReference | StepCache) for each in method.interventions)
    if budgets and not saves_more:
        budget, words = budgets[0], "the method's budget"
    else:
        budget = _largest(full, config, most, start=1)
        words = f"{budget} of {full.reference} tokens from step 1 on"
    done = (Prune(random(full.reference, case.seed), budget, start=1),)
    return PlannedRun(planned(full, done), words, done)


def _largest(full: RunPlan, config: TransformerConfig, most: float, start: int) -> int:
    """Most reference tokens from a step on, with at most so many FLOP."""
    low, high = 0, full.reference
    while low < high:
        middle = (low + high + 1) // 2
        fits = full.keep(middle, start).work(config).total <= most
        low, high = (middle, high) if fits else (low, middle - 1)
    if low < 1:
        raise NoControlError("even one token in every step is more than the method's work")
    return low


def smaller_reference(
    probe: Probe, case: Case, tokens: int
) -> tuple[Image.Image, dict[str, Any], int]:
    """The reference, resized before it becomes tokens.

    Returns:
        The picture, the pipeline's arguments that leave it so and keep the output's size, and the
        number of its tokens, at most `tokens`.

    Raises:
        NoControlError: the pipeline takes no picture of that size, or brings every reference to a
            size of its own.

    Examples:
        >>> from recast_probe.testing.tiny import tiny_image
        >>> probe = rp.Probe.tiny("flux-kontext")
        >>> case = rp.datasets.load_benchmark("pocket", subjects=1, prompts=1)[0]
        >>> smaller_reference(probe, case, 10)[2]
        9
    """
    layout = probe.layout(case.reference, case.prompt)
    if not layout.placed or len(layout.references) != 1:
        raise NoControlError("its tokens are not places of one picture")
    side = getattr(probe.family, "token_pixels", None)
    if side is None:
        raise NoControlError("it is not known how many pixels a token stands for")
    grid, pixels = layout.references[0], side()
    share = math.sqrt(tokens / grid.size)
    rows, columns = (max(1, int(side * share + 1e-9)) for side in (grid.rows, grid.columns))
    picture = case.reference.resize((columns * pixels, rows * pixels), Image.Resampling.LANCZOS)
    known = inspect.signature(type(probe.pipe).__call__).parameters
    arguments: dict[str, Any] = {"_auto_resize": False} if "_auto_resize" in known else {}
    try:
        found = probe.layout(picture, case.prompt, **arguments)
    except InputError as error:
        raise NoControlError(f"a picture of {picture.size} does not do ({error})") from error
    if found.generation != layout.generation and {"height", "width"} <= set(known):
        out = layout.generation
        arguments |= {"height": out.rows * pixels, "width": out.columns * pixels}
        found = probe.layout(picture, case.prompt, **arguments)
    if found.reference_tokens > tokens or found.generation != layout.generation:
        raise NoControlError("this pipeline brings every reference to a size of its own")
    return picture, arguments, found.reference_tokens
