"""One run of a pipeline under observation: attention of its blocks is read and changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch.nn import functional

from recast_probe.attention.inputs import AttentionInputs
from recast_probe.attention.key_mask import without_hidden
from recast_probe.attention.order import arranged, arranged_queries, restored, returned
from recast_probe.attention.readout import PairStatistics, Readout
from recast_probe.errors import InputError, VerificationError
from recast_probe.runs.call_observer import CallObserver
from recast_probe.runs.dispatch import (
    BlockCall,
    dispatch,
    dispatched,
    given_attention,
    is_native,
    uncut,
)
from recast_probe.runs.finite import finite, not_finite_attention
from recast_probe.runs.recorder import AttentionRecorder

# Other exact kernels differ from ours by rounding only; anything above this is another function.
KERNEL_TOLERANCE = 0.02


class RunObserver(CallObserver):
    """Handles the transformer calls of one run (see ``attach_nnsight.CallHandler``): hands the
    attention of their blocks to the interventions, and records it where it is asked to.

    Args:
        settings: of ``CallObserver``.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.kernel_difference: float | None = None
        self._calls = self.family.attention_calls()

    def operations(self, block: int) -> tuple[str, ...]:
        """Where attention of a block is found in the present call."""
        return self.family.operations(self._calls[block], self._edited)

    def blocks(self) -> Sequence[int]:
        """Blocks whose attention is read or changed in this call."""
        if any(hook.skips() for hook in self.hooks):
            return []
        order = None if self._keep is None and self._left is None else self._order()
        if order is not None and order.left_out > 0:
            return list(range(len(self.run.block_kinds)))
        found: set[int] = set()
        for branch in self._rows:
            if len(self._rows) > 1:  # what acts in one of them acts in the call
                self._enter(branch)
            found |= {block for block in range(len(self.run.block_kinds)) if self._reached(block)}
        if len(self._rows) > 1:
            self._enter(self._rows[0])
        return sorted(found)

    def _reached(self, block: int) -> bool:
        """Whether attention of a block is read or changed in the rows of the present branch."""
        return (
            self._recorded(block)
            or bool(self._pairs_read(block))
            or any(hook.changes_attention(block) for hook in self.hooks)
            or any(hook.stores_keys(block) for hook in self.hooks)
            or self.stored_keys(block) is not None
        )

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

    def attend(
        self, block: int, arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> torch.Tensor:
        """Attention of one block, with its statistics read on the way."""
        whole = given_attention(block, arguments, options, self.step in self.needs.merges)
        layout, order = self._computed_layout(), self._order()
        if order is None and whole.hidden is None and len(self._rows) == 1:
            return self._attend(block, whole, BlockCall(options, plain=True))[0]
        call = BlockCall(options, plain=False, order=order)
        outputs, changed = [], order is not None and order.left_out > 0
        for branch, part in self._of_branches(whole):
            self._enter(branch)
            canonical = arranged(part, order, layout)
            output, other = self._attend(block, canonical, call)
            outputs.append(restored(output, order, layout))
            changed |= other
        self._enter(self._rows[0])
        output = torch.cat(outputs)
        if changed:
            return output
        # the image stays the pipeline's own, to the last bit; the statistics are the softmax's
        own = dispatch(*arguments, **options)
        self._compare_kernels(output, own)
        return own

    def _of_branches(self, whole: AttentionInputs) -> Iterator[tuple[str, AttentionInputs]]:
        """The rows of each branch of the present call."""
        for number, branch in enumerate(self._rows):
            rows = slice(number * self.run.prompts, (number + 1) * self.run.prompts)
            hidden = None if whole.hidden is None else whole.hidden[rows]
            query, key, value = (each[rows] for each in (whole.query, whole.key, whole.value))
            yield branch, replace(whole, query=query, key=key, value=value, hidden=hidden)

    def _enter(self, branch: str) -> None:
        """What follows is of the rows of this branch."""
        self.branch = branch
        for hook in self.hooks:
            hook.begin_rows(branch)

    def _attend(
        self, block: int, given: AttentionInputs, call: BlockCall
    ) -> tuple[torch.Tensor, bool]:
        """Attention's output in canonical order, and whether it is another than the model's."""
        inputs = self._with_stored_keys(block, given)
        changing = [hook for hook in self.hooks if hook.changes_attention(block)]
        for hook in changing:
            inputs = hook.attention_inputs(block, inputs)
        channels = inputs.value.shape[-1]
        for hook in changing:
            inputs = hook.attention_logits(block, inputs)
        left_out = call.order is not None and call.order.left_out > 0
        used = left_out or bool(changing) or inputs is not given
        found = output = self._attention(block, inputs, call, used)[..., :channels]
        for hook in changing:
            output = hook.attention_output(block, output)
        return output, inputs is not given or output is not found

    def _attention(
        self, block: int, inputs: AttentionInputs, call: BlockCall, used: bool
    ) -> torch.Tensor:
        """Attention's output, once it is known what the block attends with.

        Args:
            used: the image is made of it, and not of what the pipeline computes by itself.
        """
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
            return self._in_own_order(inputs, call)
        # hooks that read attention may want entropies
        least = "queried" if any(hook.attention_pairs(block) for hook in self.hooks) else "scores"
        mass_table = least if recorder is None else recorder.mass_table
        if mass_table == "scores":
            mass_table = least
        missing = () if call.order is None else call.order.missing()

        def read(part: AttentionInputs) -> Readout:
            return self.family.read_attention(
                part.query,
                part.key,
                part.value,
                self._present_layout(),
                pairs=tuple(dict.fromkeys(pairs)),
                mass_table=mass_table,
                scale=part.scale,
                heads=heads,
                **({"unread": missing} if missing else {}),
                **({"cuts": part.cuts} if part.cuts else {}),
            )

        try:
            readout = without_hidden(read, inputs)
        except VerificationError as error:
            raise self._not_finite(block, inputs) or error from None
        # a value that is not finite leaves the probabilities as they are
        wrong = None if finite(readout.output) else self._not_finite(block, inputs)
        if wrong is not None:
            raise wrong
        if call.plain and self.kernel_difference is None:
            whole = readout.output if not inputs.cuts else uncut(inputs)
            self._compare_kernels(whole, dispatched(inputs, call.options))
        for hook in self.hooks:
            if hook.attention_pairs(block):
                hook.read_attention(block, readout)
        if recorder is not None:
            own = readout if heads == recorder.selected_heads else _of_heads(readout, recorder)
            recorder.add(own, branch=self.branch, step=self.step, block=block, kept=self._keep)
        unlike = not is_native(call.options) if call.plain else used
        if unlike and not inputs.cuts:
            # the image is what it would be unread, to the last bit; the statistics are exact
            return self._in_own_order(inputs, call)
        return readout.output

    def _in_own_order(self, inputs: AttentionInputs, call: BlockCall) -> torch.Tensor:
        """Attention by the model's own kernel, which sums over keys in the model's own order."""
        order, layout = call.order, self._computed_layout()
        if order is None or inputs.key.shape[1] != len(order.keys):  # or with keys of another step
            return dispatched(inputs, call.options)
        output = dispatched(returned(inputs, order, layout), call.options)
        return arranged_queries(output, order, layout)

    def _not_finite(self, block: int, inputs: AttentionInputs) -> VerificationError | None:
        found = {"query": inputs.query, "key": inputs.key, "value": inputs.value}
        error = not_finite_attention(found, block, self._where(), self._inputs)
        if error is not None:
            self._keep_suspect()
        return error

    @property
    def _in_order(self) -> bool:
        """Attention may have to be put into another order first."""
        return bool(self.family.batched) or self.family.drops_in_attention

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
        if changed or self._recorded(block) or self._pairs_read(block) or self._in_order:
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
        hidden = inputs.hidden
        if hidden is not None:
            hidden = functional.pad(hidden, (0, key.shape[1] - hidden.shape[1]))
        return replace(inputs, key=key, value=value, hidden=hidden)

    def _compare_kernels(self, output: torch.Tensor, own: torch.Tensor) -> None:
        """Hold the first attention output against the pipeline's own."""
        if self.kernel_difference is not None:
            return
        self.kernel_difference = float((own.float() - output.float()).abs().max())
        if not self.kernel_difference <= KERNEL_TOLERANCE * max(float(own.abs().max()), 1e-6):
            raise VerificationError(
                f"The probe's attention differs from the pipeline's own by "
                f"{self.kernel_difference:.3g}; its attention backend is not plain softmax "
                "attention. Call pipe.transformer.set_attention_backend('native') first."
            )

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


def _of_heads(readout: Readout, recorder: AttentionRecorder) -> Readout:
    """The readout of the recorder's heads alone, of the recorded pair alone."""
    heads = recorder.selected_heads
    pair = readout.pairs[recorder.pair]
    narrowed = PairStatistics(*(getattr(pair, each.name)[:, heads] for each in fields(pair)))
    return replace(readout, pairs={recorder.pair: narrowed}, mass=readout.mass[:, heads])
