"""The transformer calls of one run: which step and branch each is of, and which tokens it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from recast_probe.attention.order import SequenceOrder, group_order, without_dropped
from recast_probe.errors import InputError, VerificationError
from recast_probe.interventions.base import RunContext, RunHook, StepContext
from recast_probe.interventions.run_needs import RunNeeds
from recast_probe.layout import GROUPS, TokenLayout
from recast_probe.pipelines.base import Family, Schedule
from recast_probe.pipelines.flow_schedule import timestep_tolerance
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.runs.branches import BranchFinder
from recast_probe.runs.finite import all_finite, check_output
from recast_probe.runs.recorder import AttentionRecorder


class CallObserver:
    """Checks layout, timestep and branch of every transformer call of a run, and removes reference
    tokens as the interventions say. What happens inside is ``RunObserver``'s.

    Attributes:
        kept: number of reference tokens that were present in each step.
        recorder: None when nothing is recorded.
    """

    def __init__(
        self,
        *,
        family: Family,
        run: RunContext,
        schedule: Schedule,
        branches: Mapping[str, torch.Tensor | None],
        needs: RunNeeds,
        hooks: Sequence[RunHook] = (),
        recorder: AttentionRecorder | None = None,
        stop_early: bool = False,
        progress: bool = False,
    ) -> None:
        self.family = family
        self.run = run
        self.schedule = schedule
        self.branches = dict(branches)
        self.calls_of_step = family.calls_of_step(list(branches))
        self._finder = BranchFinder(family, branches, run.prompts)
        self.needs = needs
        self.hooks = list(hooks)
        self.recorder = recorder
        self.kept: list[int] = []
        self.timesteps_checked = 0
        self.last_step = len(schedule) - 1
        if stop_early and recorder is not None:
            self.last_step = max(recorder.steps)
        self.stop_early = stop_early
        self.step = -1
        self.branch = ""
        self._rows: tuple[str, ...] = ()  # branches of the present call
        self._seen: set[str] = set()
        self._keep: np.ndarray | None = None
        self._cached: np.ndarray | None = None  # what step 0 had, of a model that keeps it
        # reference tokens that stay, where the others are left out inside attention
        self._left: torch.Tensor | None = None
        self._reused = False
        # inputs of a call in which NaN or infinity arose, itself given none
        self.suspect: Mapping[str, Any] | None = None
        self._bar = tqdm(total=self.last_step + 1, disable=not progress, desc="Steps")

    @property
    def calls(self) -> int:
        """Transformer calls of the whole run."""
        return len(self.schedule) * len(self.calls_of_step)

    def close(self) -> None:
        """Close the progress bar."""
        self._bar.close()

    def begin(self, call: int, inputs: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Check a call against what was expected of it, and prune its inputs.

        Raises:
            VerificationError: another step, timestep, branch or layout than was expected.
        """
        step, order = self._place(call)
        if order == 0:
            self._begin_step(step)
        self._device, self._inputs = inputs["hidden_states"].device, inputs
        self._check_timestep(inputs)
        self._rows = self._which_branches(order, inputs)
        self.branch = self._rows[0]
        self._check_layout(inputs)
        edited: Mapping[str, Any] | None = None
        rows = () if self._reused else self._in_cache(self._keep)
        self._left = None
        if rows is not None and self.family.drops_in_attention:
            if len(rows) < self.run.reference_tokens:
                self._left = torch.as_tensor(np.asarray(rows, np.int64))
        elif rows is not None:
            edited = self.family.keep_reference_tokens(inputs, self.run.layout, rows)
        for hook in self.hooks:
            changed = hook.edit_inputs(
                self._context, inputs if edited is None else edited, self.family
            )
            edited = edited if changed is None else changed
        if edited is not None and self._left is None and not self._reused:
            self.kept[-1] = self.family.count_reference_tokens(edited, self.run.layout)
        if self.recorder is not None and self.step in self.recorder.steps and not self.kept[-1]:
            raise InputError(
                "Attention to the reference cannot be recorded in a step without reference "
                "tokens; leave the profile out, or choose other profile_steps."
            )
        self._edited = inputs if edited is None else edited
        self._order_known = False
        for hook in self.hooks:
            hook.begin_call(self.step, self.branch, self._computed_layout())
            hook.begin_inputs(self._edited)
        return edited

    def _in_cache(self, kept: np.ndarray | None) -> np.ndarray | None:
        """The tokens that stay, by their place among those that there are: a model with a cache has
        those that its first step had."""
        if self.family.forgets_dropped and self.step == 0:
            self._cached = kept
        if self._cached is None or self.step == 0:
            return kept
        kept = np.arange(self.run.reference_tokens) if kept is None else kept
        lost = np.setdiff1d(kept, self._cached)
        if len(lost):
            raise InputError(
                f"Reference token {lost[0]} was dropped in step 0, in which {self.family.name} "
                f"computes its references, and is not there in step {self.step}; drop tokens from "
                "step 1 on, or never more than in a later step."
            )
        return np.searchsorted(self._cached, kept)

    def _place(self, call: int) -> tuple[int, int]:
        """Step of a call, and which call of that step it is."""
        return divmod(call, len(self.calls_of_step))

    def _begin_step(self, step: int) -> None:
        self.step, self._seen = step, set()
        self._context = context = StepContext(self.run, step, self._profile_so_far)
        self._keep = None
        available = self.run.reference_tokens
        for place, hook in enumerate(self.hooks):
            tokens = hook.reference_tokens(context)
            if tokens is not None:
                tokens = np.unique(np.asarray(tokens, dtype=np.int64))
                if len(tokens) < available:
                    self.needs.check_drop(place, step)
                self._keep = (
                    tokens
                    if self._keep is None
                    else np.intersect1d(self._keep, tokens, assume_unique=True)
                )
        if step in self.needs.renews:
            self._keep = None
        self._reused = step in self.needs.reuses
        self.run.present = self._keep
        self.kept.append(available if self._keep is None else len(self._keep))

    def _check_timestep(self, inputs: Mapping[str, Any]) -> None:
        observed = self.family.observed_timestep(inputs)
        expected = self.schedule.timesteps[self.step]
        tolerance = timestep_tolerance(inputs["timestep"], float(expected))
        if not bool(((observed - expected).abs() <= tolerance).all()):
            raise VerificationError(
                f"Step {self.step} should run at timestep {expected:.3f}, but the transformer was "
                f"given {observed.tolist()}: a step was left out or made twice, the scheduler "
                "was changed during the run, or the family's timestep_scale is another one."
            )
        self.timesteps_checked += 1

    def _check_layout(self, inputs: Mapping[str, Any]) -> None:
        expected = self._layout
        if self._cached is not None and self.step > 0:
            expected = expected.in_one_row(len(self._cached))
        if not self.family.layout_fits(inputs, expected):
            observed = self.family.observed_layout(inputs)
            raise VerificationError(
                f"The transformer was given {observed}, but {expected} was expected from "
                "the pipeline's arguments."
            )

    def _which_branches(self, order: int, inputs: Mapping[str, Any]) -> tuple[str, ...]:
        """The branches that are the rows of a call, checked against its text embeddings."""
        rows = self._finder.rows(self.calls_of_step[order], inputs)
        for branch in rows:
            if branch in self._seen:
                raise VerificationError(
                    f"Step {self.step} called the transformer twice with the {branch} prompt, and "
                    "once is expected: the pipeline has a guidance of its own, or a step was made "
                    "twice."
                )
            self._seen.add(branch)
        return rows

    def _order(self) -> SequenceOrder | None:
        """Where attention has its tokens in the present call."""
        if not self._order_known:
            layout = self._computed_layout() if self._left is None else self._layout
            found = self.family.sequence_order(self._edited, layout)
            if self._left is not None:
                found = without_dropped(found or group_order(layout, GROUPS), layout, self._left)
            self._present_order, self._order_known = found, True
        return self._present_order

    def end(self) -> bool:
        """Count a step that is done; True when a run that only wants a profile has all of it."""
        if len(self._seen) < len(self.branches):
            return False
        self._bar.update()
        return self.stop_early and self.step == self.last_step

    def _keep_suspect(self) -> None:
        if all_finite(self._inputs):
            self.suspect = self._inputs

    def _where(self) -> str:
        return f"step {self.step} of the {self.branch} branch"

    def _generation_rows(self, states: torch.Tensor) -> torch.Tensor:
        return self.family.generation_rows(states, self.run.layout)

    def check_output(self, output: Any) -> None:
        """Check what the transformer gave in this call.

        Raises:
            VerificationError: it holds NaN or infinity.
        """
        try:
            check_output(output, self._generation_rows, self._where(), self._inputs)
        except VerificationError:
            self._keep_suspect()
            raise

    @property
    def _layout(self) -> TokenLayout:
        """The full sequence of the present branch."""
        return self.run.layout_of(self.branch)

    def _computed_layout(self) -> TokenLayout:
        """The tokens that the transformer computes in this call."""
        if not self._reused:
            return self._present_layout()
        return self._layout.in_one_row(0)

    def _present_layout(self) -> TokenLayout:
        """The tokens that are attended to in this call."""
        present = self.kept[-1]
        if present == self.run.reference_tokens:
            return self._layout
        # a pruned reference is not a grid any more; one row of tokens has the same spans
        return self._layout.in_one_row(present)

    def _profile_so_far(self) -> AttentionProfile:
        if self.recorder is None:
            raise InputError("This run records no attention, so no profile can be ranked in it.")
        done = [step for step in self.recorder.steps if step < self.step]
        profiles = self.recorder.profiles(
            self.schedule, self.run.block_kinds, [{}] * self.run.prompts, steps=done
        )
        return profiles[0]
