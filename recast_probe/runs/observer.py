"""One run of a pipeline under observation: finds and checks the step and branch of every call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from recast_probe._utils.compat import attends_by_torch, backend_name
from recast_probe.attention.inputs import AttentionInputs
from recast_probe.attention.log_sum_exp import attention_with_log_sum_exp
from recast_probe.attention.readout import PairStatistics, Readout
from recast_probe.errors import InputError, UnsupportedPipelineError, VerificationError
from recast_probe.interventions.base import RunContext, RunHook, StepContext
from recast_probe.interventions.run_needs import RunNeeds
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.base import Family, Schedule
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.runs.finite import all_finite, check_output, finite, not_finite_attention
from recast_probe.runs.recorder import AttentionRecorder

# Other exact kernels differ from ours by rounding only; anything above this is another function.
KERNEL_TOLERANCE = 0.02


class RunObserver:
    """Handles the transformer calls of one run (see ``attach_nnsight.CallHandler``).

    It checks layout, timestep and branch of every call, removes reference tokens as the
    interventions say, and records attention where it is asked to.

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
        mass_table: str = "all",
        stop_early: bool = False,
        progress: bool = False,
    ) -> None:
        self.family = family
        self.run = run
        self.schedule = schedule
        self.branches = dict(branches)
        self.needs = needs
        self.hooks = list(hooks)
        self.recorder = recorder
        self.mass_table = mass_table
        self.kept: list[int] = []
        self.kernel_difference: float | None = None
        self.timesteps_checked = 0
        self.last_step = len(schedule) - 1
        if stop_early and recorder is not None:
            self.last_step = max(recorder.steps)
        self.stop_early = stop_early
        self.step = -1
        self.branch = ""
        self._seen: set[str] = set()
        self._keep: np.ndarray | None = None
        self._reused = False
        # inputs of a call in which NaN or infinity arose, itself given none
        self.suspect: Mapping[str, Any] | None = None
        self._bar = tqdm(total=self.last_step + 1, disable=not progress, desc="Steps")

    @property
    def calls(self) -> int:
        """Transformer calls of the whole run."""
        return len(self.schedule) * len(self.branches)

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
        self.branch = self._which_branch(order, inputs)
        self._check_layout(inputs)
        edited: Mapping[str, Any] | None = None
        if self._reused or self._keep is not None:
            rows = () if self._reused else self._keep
            edited = self.family.keep_reference_tokens(inputs, self.run.layout, rows)  # type: ignore[arg-type]
        for hook in self.hooks:
            changed = hook.edit_inputs(
                self._context, inputs if edited is None else edited, self.family
            )
            edited = edited if changed is None else changed
        if edited is not None and not self._reused:
            self.kept[-1] = self.family.count_reference_tokens(edited, self.run.layout)
        if self.recorder is not None and self.step in self.recorder.steps and not self.kept[-1]:
            raise InputError(
                "Attention to the reference cannot be recorded in a step without reference "
                "tokens; leave the profile out, or choose other profile_steps."
            )
        for hook in self.hooks:
            hook.begin_call(self.step, self.branch, self._computed_layout())
            hook.begin_inputs(inputs if edited is None else edited)
        return edited

    def _place(self, call: int) -> tuple[int, int]:
        """Step of a call, and which call of that step it is."""
        return divmod(call, len(self.branches))

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
        # the pipeline rounds the timestep to the dtype of the latents
        tolerance = 4 * torch.finfo(inputs["timestep"].dtype).eps * max(expected, 1.0)
        if not bool(((observed - expected).abs() <= tolerance).all()):
            raise VerificationError(
                f"Step {self.step} should run at timestep {expected:.3f}, but the transformer was "
                f"given {observed.tolist()}: a step was left out or made twice, or the scheduler "
                "was changed during the run."
            )
        self.timesteps_checked += 1

    def _check_layout(self, inputs: Mapping[str, Any]) -> None:
        observed, expected = self.family.observed_layout(inputs), self._layout
        if observed != expected:
            raise VerificationError(
                f"The transformer was given {observed}, but {expected} was expected from "
                "the pipeline's arguments."
            )

    def _which_branch(self, order: int, inputs: Mapping[str, Any]) -> str:
        """The branch of a call, by its text embedding; by order when the embeddings are equal."""
        names = list(self.branches)
        branch = names[order]
        if len(names) > 1:
            given = self.family.observed_embedding(inputs).float()
            distances = [
                float((given - embedding.to(given)).abs().max())
                if embedding.shape == given.shape
                else float("inf")
                for embedding in self.branches.values()
                if embedding is not None
            ]
            if len(set(distances)) == len(names):
                branch = names[int(np.argmin(distances))]
        if branch in self._seen:
            raise VerificationError(
                f"Step {self.step} called the transformer twice with the {branch} prompt, and once "
                "is expected: the pipeline has a guidance of its own, or a step was made twice."
            )
        self._seen.add(branch)
        return branch

    def blocks(self) -> Sequence[int]:
        """Blocks whose attention is read or changed in this call."""
        if any(hook.skips() for hook in self.hooks):
            return []
        return [
            block
            for block in range(len(self.run.block_kinds))
            if self._recorded(block)
            or self._pairs_read(block)
            or any(hook.changes_attention(block) for hook in self.hooks)
            or any(hook.stores_keys(block) for hook in self.hooks)
            or self.stored_keys(block) is not None
        ]

    def _recorded(self, block: int) -> bool:
        recorder = self.recorder
        return (
            recorder is not None
            and self.step in recorder.steps
            and block in recorder.blocks
            and self.branch in recorder.branches
        )

    def _pairs_read(self, block: int) -> list[tuple[str, str]]:
        return [pair for hook in self.hooks for pair in hook.attention_pairs(block)]

    def end(self) -> bool:
        """Count a step that is done; True when a run that only wants a profile has all of it."""
        if len(self._seen) < len(self.branches):
            return False
        self._bar.update()
        return self.stop_early and self.step == self.last_step

    def attend(
        self, block: int, arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> torch.Tensor:
        """Attention of one block, with its statistics read on the way."""
        inputs = self._with_stored_keys(block, self._given(block, arguments, options))
        changing = [hook for hook in self.hooks if hook.changes_attention(block)]
        for hook in changing:
            inputs = hook.attention_inputs(block, inputs)
        channels = inputs.value.shape[-1]
        for hook in changing:
            inputs = hook.attention_logits(block, inputs)
        if inputs.scale is not None:
            options = {**options, "scale": inputs.scale}
        if inputs.logit_bias is not None:
            options = {**options, "attn_mask": inputs.logit_bias[None, None, None]}
        output = self._attention(block, inputs, options)[..., :channels]
        for hook in changing:
            output = hook.attention_output(block, output)
        return output

    def _given(
        self, block: int, arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> AttentionInputs:
        """What the model gives to attention."""
        mask, merges = options.get("attn_mask"), self.step in self.needs.merges
        if len(arguments) != 3 or (mask is not None and not merges) or options.get("is_causal"):
            raise UnsupportedPipelineError(
                f"Block {block} uses an attention mask, and statistics under a mask are not "
                "supported; leave out attention masks in joint_attention_kwargs."
            )
        # the mask of merged tokens is one row, the same for all queries and heads
        bias = None if mask is None else mask.flatten()
        query, key, value = arguments
        return AttentionInputs(query, key, value, scale=options.get("scale"), logit_bias=bias)

    def _attention(
        self, block: int, inputs: AttentionInputs, options: Mapping[str, Any]
    ) -> torch.Tensor:
        """Attention's output, once it is known what the block attends with."""
        recorder = self.recorder if self._recorded(block) else None
        pairs = self._pairs_read(block)
        if recorder is not None:
            pairs = [recorder.pair, *pairs]
        # hooks that read attention read all heads
        heads = recorder.selected_heads if recorder is not None and len(pairs) == 1 else None
        if inputs.logit_bias is not None and (pairs or inputs.cuts):
            raise InputError(
                "Attention to merged tokens that are weighed by their size can be neither read "
                "nor cut; choose Merge(..., proportional=False)."
            )
        if not pairs and not inputs.cuts:
            return dispatch(inputs.query, inputs.key, inputs.value, **options)
        try:
            readout: Readout = self.family.read_attention(
                inputs.query,
                inputs.key,
                inputs.value,
                self._present_layout(),
                pairs=tuple(dict.fromkeys(pairs)),
                mass_table="queried" if recorder is None else self.mass_table,
                scale=inputs.scale,
                heads=heads,
                **({"cuts": inputs.cuts} if inputs.cuts else {}),
            )
        except VerificationError as error:
            raise self._not_finite(block, inputs) or error from None
        # a value that is not finite leaves the probabilities as they are
        wrong = None if finite(readout.output) else self._not_finite(block, inputs)
        if wrong is not None:
            raise wrong
        if self.kernel_difference is None:
            whole = readout.output if not inputs.cuts else _uncut(inputs)
            self._compare_kernels(whole, (inputs.query, inputs.key, inputs.value), options)
        for hook in self.hooks:
            if hook.attention_pairs(block):
                hook.read_attention(block, readout)
        if recorder is not None:
            own = readout if heads == recorder.selected_heads else _of_heads(readout, recorder)
            recorder.add(own, branch=self.branch, step=self.step, block=block, kept=self._keep)
        if not inputs.cuts and not _is_native(options):
            # the image stays the pipeline's own, to the last bit; the statistics are the softmax's
            return dispatch(inputs.query, inputs.key, inputs.value, **options)
        return readout.output

    def _not_finite(self, block: int, inputs: AttentionInputs) -> VerificationError | None:
        found = {"query": inputs.query, "key": inputs.key, "value": inputs.value}
        error = not_finite_attention(found, block, self._where(), self._inputs)
        if error is not None:
            self._keep_suspect()
        return error

    def _keep_suspect(self) -> None:
        if all_finite(self._inputs):
            self.suspect = self._inputs

    def _where(self) -> str:
        return f"step {self.step} of the {self.branch} branch"

    def check_output(self, output: Any) -> None:
        """Check what the transformer gave in this call.

        Raises:
            VerificationError: it holds NaN or infinity.
        """
        try:
            check_output(output, self.run.layout.generation.size, self._where(), self._inputs)
        except VerificationError:
            self._keep_suspect()
            raise

    def stored_keys(self, block: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Keys and values of an earlier step that a block attends to in this call."""
        if not self._reused:
            return None
        found = (hook.stored_keys(block) for hook in self.hooks)
        return next((each for each in found if each is not None), None)

    def only_stored_keys(self, block: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The same on the run's device, where nothing else is read or changed in the block."""
        changed = any(
            hook.changes_attention(block) or hook.stores_keys(block) for hook in self.hooks
        )
        if changed or self._recorded(block) or self._pairs_read(block):
            return None
        stored = self.stored_keys(block)
        if stored is None:
            return None
        return stored[0].to(self._device), stored[1].to(self._device)

    def _with_stored_keys(self, block: int, inputs: AttentionInputs) -> AttentionInputs:
        for hook in self.hooks:
            if hook.stores_keys(block):
                hook.store_keys(block, inputs.key, inputs.value)
        stored = self.stored_keys(block)
        if stored is None:
            return inputs
        key, value = (
            torch.cat([own, earlier.to(own.device)], dim=1)
            for own, earlier in zip((inputs.key, inputs.value), stored, strict=True)
        )
        return replace(inputs, key=key, value=value)

    @property
    def _layout(self) -> TokenLayout:
        """The full sequence of the present branch."""
        return self.run.layout_of(self.branch)

    def _computed_layout(self) -> TokenLayout:
        """The tokens that the transformer computes in this call."""
        if not self._reused:
            return self._present_layout()
        return replace(self._layout, references=())

    def _present_layout(self) -> TokenLayout:
        """The tokens that are attended to in this call."""
        present = self.kept[-1]
        if present == self.run.reference_tokens:
            return self._layout
        # a pruned reference is not a grid any more; one row of tokens has the same spans
        grids = (Grid(rows=1, columns=present),) if present else ()
        return replace(self._layout, references=grids)

    def _compare_kernels(
        self, output: torch.Tensor, arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> None:
        """Hold the first attention output against the pipeline's own."""
        own = dispatch(*arguments, **options)
        self.kernel_difference = float((own.float() - output.float()).abs().max())
        if not self.kernel_difference <= KERNEL_TOLERANCE * max(float(own.abs().max()), 1e-6):
            raise VerificationError(
                f"The probe's attention differs from the pipeline's own by "
                f"{self.kernel_difference:.3g}; its attention backend is not plain softmax "
                "attention. Call pipe.transformer.set_attention_backend('native') first."
            )

    def _profile_so_far(self) -> AttentionProfile:
        if self.recorder is None:
            raise InputError("This run records no attention, so no profile can be ranked in it.")
        done = [step for step in self.recorder.steps if step < self.step]
        profiles = self.recorder.profiles(
            self.schedule, self.run.block_kinds, [{}] * self.run.prompts, steps=done
        )
        return profiles[0]

    def facts(self) -> dict[str, Any]:
        """What was checked during the run, ready for JSON."""
        facts: dict[str, Any] = {
            "timesteps_checked": self.timesteps_checked,
            "layout_checked": True,
            "branches": list(self.branches),
        }
        if self.recorder is not None:
            facts |= {
                "attention_calls_expected": int(self.recorder.fired.size),
                "attention_calls_recorded": int(self.recorder.fired.sum()),
                "largest_mass_error": self.recorder.largest_mass_error,
                "largest_row_sum_error": self.recorder.largest_row_sum_error,
                "attention_output_difference": self.kernel_difference,
            }
        return facts


def dispatch(*arguments: Any, **options: Any) -> torch.Tensor:
    """Attention as the pipeline itself would compute it."""
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    return dispatch_attention_fn(*arguments, **options)


def _is_native(options: Mapping[str, Any]) -> bool:
    """PyTorch chooses the kernel, as it does for the readout: both have the same output."""
    return attends_by_torch() and backend_name(options.get("backend")) == "native"


def _uncut(inputs: AttentionInputs) -> torch.Tensor:
    """The output without cuts, which the pipeline's own attention knows nothing of."""
    return attention_with_log_sum_exp(inputs.query, inputs.key, inputs.value, inputs.scale).output


def _of_heads(readout: Readout, recorder: AttentionRecorder) -> Readout:
    """The readout of the recorder's heads alone, of the recorded pair alone."""
    heads = recorder.selected_heads
    pair = readout.pairs[recorder.pair]
    narrowed = PairStatistics(*(getattr(pair, each.name)[:, heads] for each in fields(pair)))
    return replace(readout, pairs={recorder.pair: narrowed}, mass=readout.mass[:, heads])
