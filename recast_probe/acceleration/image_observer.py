"""One image of a pipeline that the user calls: what a run knows, read while it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from recast_probe.errors import VerificationError
from recast_probe.interventions.base import Intervention, RunContext
from recast_probe.layout import TokenLayout
from recast_probe.pipelines.base import Family
from recast_probe.pipelines.flow_schedule import present_schedule
from recast_probe.runs.call import PipelineCall
from recast_probe.runs.observer import RunObserver
from recast_probe.runs.recording_plan import prepare_run

BRANCHES = ("conditional", "unconditional")


class ImageObserver(RunObserver):
    """A session that starts at the first call of an image and learns its branches on the way.

    Steps are those of the pipeline's scheduler, from where the image begins. The first call of a
    step is the conditional branch, a second one the unconditional, as in diffusers. Attention is
    recorded in the conditional branch alone, since that is what rankings are made of.

    Args:
        inputs: of the first call.
        interventions: what is done to this image.

    Raises:
        InputError: the interventions do not fit the image, or the scheduler calls the transformer
            several times a step; nothing of it was computed.
    """

    def __init__(
        self,
        family: Family,
        layout: TokenLayout,
        inputs: Mapping[str, Any],
        interventions: Sequence[Intervention],
    ) -> None:
        self._scheduler = family.pipe.scheduler
        self._shape = inputs["hidden_states"].shape
        # img2img and inpainting pipelines leave out the first steps
        self._first = getattr(self._scheduler, "begin_index", None) or 0
        whole = present_schedule(self._scheduler)
        schedule = replace(
            whole, timesteps=whole.timesteps[self._first :], sigmas=whole.sigmas[self._first :]
        )
        rows = family.rows_now()
        prompts = len(inputs["hidden_states"]) // len(rows)
        branches = rows if family.batched else BRANCHES
        run = RunContext(
            layout=layout,
            timesteps=schedule.timesteps,
            sigmas=schedule.sigmas,
            block_kinds=family.block_kinds,
            prompts=prompts,
            heads=family.heads,
            batched=len(rows) > 1,
        )
        request = PipelineCall(("",) * prompts, (), 0, {}, layout, schedule)
        needs, recorder = prepare_run(
            family, request, None, interventions, run, BRANCHES[:1], mass_table="queried"
        )
        self._stack = ExitStack()
        hooks = [self._stack.enter_context(each.attached(family, run)) for each in interventions]
        self._interventions = list(interventions)
        super().__init__(
            family=family,
            run=run,
            schedule=schedule,
            branches=dict.fromkeys(branches),
            needs=needs,
            hooks=hooks,
            recorder=recorder,
        )
        self._calls_of_step = 0
        self._calls_of_first_step = 0

    def _place(self, call: int) -> tuple[int, int]:
        index = self._scheduler.step_index
        step = 0 if index is None else index - self._first
        self._calls_of_step = self._calls_of_step + 1 if step == self.step else 1
        if step == 0:
            self._calls_of_first_step = self._calls_of_step
        follows = step in (self.step, self.step + 1) and step < self.run.steps
        if not follows or self._calls_of_step > len(self.calls_of_step):
            raise VerificationError(
                f"The transformer was called for step {step} of {self.run.steps} after step "
                f"{self.step}, {self._calls_of_step} times in it; the accelerated pipeline does "
                "not call it so. Call restore() before the transformer is used elsewhere."
            )
        return step, self._calls_of_step - 1

    # reading tensors back would make the GPU wait in every step; the schedule is the scheduler's
    def _check_timestep(self, inputs: Mapping[str, Any]) -> None:
        return

    def _check_layout(self, inputs: Mapping[str, Any]) -> None:
        shape = inputs["hidden_states"].shape
        # a model with a cache of its reference computes it in the first step alone
        later = self.family.caches_reference and self.step > 0
        if shape != self._shape if not later else shape[0] != self._shape[0]:
            raise VerificationError(
                f"The transformer was given tokens of shape {tuple(shape)} in an image "
                f"that began with {tuple(self._shape)}."
            )
        # a negative prompt may have another length, which is not known before its first call
        text = self.family.observed_text(inputs)
        for branch in self._rows:
            self.run.layouts[branch] = replace(self.run.layout, text=text)

    def _which_branches(self, order: int, inputs: Mapping[str, Any]) -> tuple[str, ...]:
        rows = self.calls_of_step[order]
        self._seen.update(rows)
        return rows

    def end(self) -> bool:
        """Let go of all that was kept once the image's last call is done."""
        if self.step == self.last_step and self._calls_of_step == self._calls_of_first_step:
            self.close()
        return False

    def close(self) -> None:
        """Let go of all that was kept; a second time does nothing."""
        super().close()
        self._stack.close()

    def report(self) -> dict[str, Any]:
        """What was done to the image, ready for JSON."""
        described = [
            each.describe() | hook.facts()
            for each, hook in zip(self._interventions, self.hooks, strict=True)
        ]
        return {
            "layout": self.run.layout.to_dict(),
            "steps": self.run.steps,
            "reference_tokens_per_step": list(self.kept),
            "interventions": described,
        }
