"""How far keys and values of the reference move away from those of an earlier step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recast_probe._utils.checks import check_indices
from recast_probe.attention.inputs import AttentionInputs
from recast_probe.errors import InputError
from recast_probe.interventions.base import CallHook, Intervention, RunContext
from recast_probe.interventions.needs import Needs

QUANTITIES = ("key", "value", "output")


@dataclass(frozen=True)
class RecordDrift(Intervention):
    """Compare the reference's keys and values in every step with those of source steps.

    It changes nothing. In each step after a source the relative error |old - new| / |new|, in the
    Euclidean norm over batch, tokens, heads and channels, is taken of the reference's keys and
    values, and of the attention output of the generation tokens when the old ones stand in for the
    new ones in that block alone. The outcome of the run is a dictionary by (source, branch) of
    dictionaries by quantity ("key", "value", "output") of float64 arrays (step, block), NaN where
    nothing was compared; ``recast_probe.drift`` labels them.

    Memory: two tensors (batch, reference tokens, heads, dim) for every source, block and branch.

    Attributes:
        sources: steps whose keys and values are kept.

    Raises:
        InputError: no source step, or one that is not an index. When the run is prepared: no
            reference, or a step that it does not have.

    Examples:
        >>> RecordDrift((4, 0)).sources
        (0, 4)
    """

    sources: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(check_indices("sources", self.sources)))

    def prepare(self, run: RunContext) -> None:
        if not run.reference_tokens:
            raise InputError("There are no reference tokens to compare; give a reference image.")
        check_indices("sources", self.sources, run.steps, of="steps")

    def needs(self, run: RunContext) -> Needs:
        steps = range(self.sources[0], run.steps)
        return Needs(reads=steps, reference_rows=steps, full_reference=steps, inside_attention=True)

    def hook(self, run: RunContext) -> DriftRecorder:
        return DriftRecorder(self, run)


class DriftRecorder(CallHook):
    """Kept keys and values, and the errors found so far, of one run."""

    def __init__(self, settings: RecordDrift, run: RunContext) -> None:
        self._sources, self._run = settings.sources, run
        self._kept: dict[tuple[int, str, int], tuple[Tensor, Tensor]] = {}
        self._outputs: dict[int, Tensor] = {}
        # by source and branch: quantity, (step, block)
        self._errors: dict[tuple[int, str], dict[str, np.ndarray]] = {}

    def changes_attention(self, block: int) -> bool:
        return self.step >= self._sources[0]

    def attention_inputs(self, block: int, inputs: AttentionInputs) -> AttentionInputs:
        reference = self._run.layout_of(self.branch).span("reference")
        key, value = inputs.key[:, reference], inputs.value[:, reference]
        self._outputs = {}
        for source in self._sources:
            place = (source, self.branch, block)
            if source == self.step:
                self._kept[place] = key.clone(), value.clone()
            if source < self.step:
                old_key, old_value = self._kept[place]
                self._note(source, block, "key", old_key, key)
                self._note(source, block, "value", old_value, value)
                self._outputs[source] = self._attended(inputs, old_key, old_value)
        return inputs

    def attention_output(self, block: int, output: Tensor) -> Tensor:
        generation = self._run.layout_of(self.branch).span("generation")
        for source, old in self._outputs.items():
            self._note(source, block, "output", old, output[:, generation])
        return output

    def _attended(self, inputs: AttentionInputs, old_key: Tensor, old_value: Tensor) -> Tensor:
        layout = self._run.layout_of(self.branch)
        own = layout.span("reference").start
        query, key, value = (
            each.transpose(1, 2)
            for each in (
                inputs.query[:, layout.span("generation")],
                torch.cat([inputs.key[:, :own], old_key], dim=1),
                torch.cat([inputs.value[:, :own], old_value], dim=1),
            )
        )
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)

    def _note(self, source: int, block: int, quantity: str, old: Tensor, new: Tensor) -> None:
        shape = (self._run.steps, len(self._run.block_kinds))
        errors = self._errors.setdefault(
            (source, self.branch), {name: np.full(shape, np.nan) for name in QUANTITIES}
        )
        error = (old.double() - new.double()).norm() / new.double().norm()
        errors[quantity][self.step, block] = float(error)

    def clear(self) -> None:
        self._kept.clear()
        self._outputs.clear()

    def result(self, provenance: dict[str, Any]) -> dict[tuple[int, str], dict[str, np.ndarray]]:
        return self._errors
