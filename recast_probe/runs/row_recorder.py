"""Rows of attention of chosen tokens, collected during one run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from recast_probe.attention.inputs import AttentionInputs
from recast_probe.attention.query_rows import query_rows
from recast_probe.errors import InputError, VerificationError
from recast_probe.interventions.base import Intervention, RunContext
from recast_probe.interventions.selective import SelectiveHook
from recast_probe.interventions.token_groups import positions, present_positions
from recast_probe.profiles.maps import AttentionMaps
from recast_probe.profiles.profile import AttentionProfile

MASS_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class RecordRows(Intervention):
    """Record rows of attention; change nothing. The run's outcome is the ``RowRecorder``.

    Attributes:
        tokens: int64, indices of query tokens within their group.
        group: their token group.
        wanted: "step", "block" and "head", each with the indices to record.
        mean_over: those of the three that are averaged as they come.
    """

    tokens: np.ndarray
    group: str
    wanted: Mapping[str, list[int]]
    mean_over: tuple[str, ...]

    def shape(self, reference_tokens: int) -> list[int]:
        """Of the rows: step, block, head, query and reference token."""
        kept = [1 if name in self.mean_over else len(each) for name, each in self.wanted.items()]
        return [*kept, len(self.tokens), reference_tokens]

    def nbytes(self, reference_tokens: int) -> int:
        """Bytes that the maps will need."""
        return 4 * int(np.prod(self.shape(reference_tokens), dtype=np.int64))

    def describe(self) -> dict[str, Any]:
        return {
            "name": "AttentionMaps",
            "group": self.group,
            "queries": len(self.tokens),
            "mean_over": list(self.mean_over),
        }

    def hook(self, run: RunContext) -> RowRecorder:
        return RowRecorder(self, run)


class RowRecorder(SelectiveHook):
    """Rows of attention of one run, in float32 on the CPU."""

    def __init__(self, settings: RecordRows, run: RunContext) -> None:
        wanted = settings.wanted
        super().__init__(run, wanted["block"], wanted["step"], ["conditional"])
        self.tokens, self.group = settings.tokens, settings.group
        self.wanted, self.mean_over = dict(wanted), settings.mean_over
        self._queries = positions(self.group, run)[self.tokens]
        self._keys = positions("reference", run)
        self._sum = np.zeros(settings.shape(run.reference_tokens), np.float32)
        self._seen: set[tuple[int, int]] = set()

    def attention_logits(self, block: int, inputs: AttentionInputs) -> AttentionInputs:
        rows = present_positions(self._queries, self.run, inputs.query.shape[1])
        if len(rows) < len(self._queries):
            raise InputError(
                f"Step {self.step} does not have all of the chosen {self.group} tokens."
            )
        columns = present_positions(self._keys, self.run, inputs.key.shape[1])
        found = query_rows(inputs, torch.as_tensor(rows), torch.as_tensor(columns))
        values = found[0, self.wanted["head"]].float().cpu().numpy()
        if len(columns) < self.run.reference_tokens:
            whole = np.full((*values.shape[:2], self.run.reference_tokens), np.nan, np.float32)
            whole[..., self.run.present] = values
            values = whole
        if "head" in self.mean_over:
            values = values.mean(0, keepdims=True)
        index = {"step": self.step, "block": block}
        place = tuple(
            0 if name in self.mean_over else self.wanted[name].index(number)
            for name, number in index.items()
        )
        self._sum[place] += values
        self._seen.add((self.step, block))
        return inputs

    def result(self, provenance: dict[str, Any]) -> RowRecorder:
        return self

    def maps(self, profile: AttentionProfile) -> AttentionMaps:
        """What was recorded, with its labels; ``profile`` is of the same run and selection.

        Raises:
            VerificationError: a block that did not fire, or rows that do not add up to the mass
                that the profile has.
        """
        expected = len(self.wanted["step"]) * len(self.wanted["block"])
        if len(self._seen) != expected:
            raise VerificationError(f"{expected - len(self._seen)} attention calls were not seen.")
        for name in {"step", "block"} & set(self.mean_over):
            self._sum /= len(self.wanted[name])
        left = [name for name in self.wanted if name not in self.mean_over]
        shape = [len(self.wanted[name]) for name in left]
        values = self._sum.reshape(*shape, *self._sum.shape[-2:])
        if self.group == "generation" and len(self.tokens) == profile.layout.generation.size:
            self._check(values.sum(-1), profile)
        columns = profile.layout.generation.columns
        row, column = np.divmod(self.tokens, columns)
        if self.group != "generation":
            row = column = np.full(len(self.tokens), -1)
        reference, token_row, token_column = profile.layout.reference_coordinates()
        text = profile.selection_text()
        averaged = f", mean over {' and '.join(self.mean_over)}s" if self.mean_over else ""
        data = xr.DataArray(
            values,
            dims=(*left, "query", "token"),
            coords={
                **{name: np.array(self.wanted[name]) for name in left},
                "query": self.tokens,
                "query_row": ("query", row),
                "query_column": ("query", column),
                "token": np.arange(profile.layout.reference_tokens),
                "row": ("token", token_row),
                "column": ("token", token_column),
                "reference": ("token", reference),
            },
            attrs={
                "queries": self.group,
                "selection": f"{text}{averaged}",
                "layout": json.dumps(profile.layout.to_dict()),
                "provenance": json.dumps(profile.provenance),
            },
        )
        return AttentionMaps(data)

    def _check(self, row_sums: np.ndarray, profile: AttentionProfile) -> None:
        mass = profile.mass.sel(query_group="generation", key_group="reference")
        error = abs(float(np.nanmean(row_sums)) - float(mass.mean()))
        if not np.isnan(row_sums).any() and error > MASS_TOLERANCE:
            raise VerificationError(
                f"The maps miss the attention mass of the same run by {error:.2g}."
            )
