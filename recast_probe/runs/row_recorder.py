"""Rows of attention of chosen tokens, collected during one run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import xarray as xr

from recast_probe.attention.inputs import AttentionInputs
from recast_probe.attention.query_rows import query_rows
from recast_probe.errors import InputError, VerificationError
from recast_probe.interventions.base import Attachment, Intervention, RunContext
from recast_probe.interventions.token_groups import positions, present_positions
from recast_probe.layout import TokenLayout
from recast_probe.profiles.maps import AttentionMaps
from recast_probe.profiles.profile import AttentionProfile

MASS_TOLERANCE = 1e-3


class RowRecorder(Intervention, Attachment):
    """Rows of attention of one run, in float32 on the CPU; it changes nothing."""

    def __init__(
        self,
        tokens: np.ndarray,
        group: str,
        wanted: Mapping[str, list[int]],
        mean_over: tuple[str, ...],
        reference_tokens: int,
    ) -> None:
        self.tokens, self.group, self.mean_over = tokens, group, mean_over
        self.wanted = dict(wanted)
        self.shape = [1 if name in mean_over else len(each) for name, each in wanted.items()]
        self.shape += [len(tokens), reference_tokens]
        self._seen: set[tuple[int, int]] = set()
        self._place = (-1, "")

    @property
    def nbytes(self) -> int:
        """Bytes that the maps will need."""
        return 4 * int(np.prod(self.shape, dtype=np.int64))

    def describe(self) -> dict[str, Any]:
        return {
            "name": "AttentionMaps",
            "group": self.group,
            "queries": len(self.tokens),
            "mean_over": list(self.mean_over),
        }

    @contextmanager
    def attached(self, family: Any, run: RunContext) -> Iterator[Attachment]:
        self._run = run
        self._queries = positions(self.group, run)[self.tokens]
        self._keys = positions("reference", run)
        self._sum = np.zeros(self.shape, np.float32)
        yield self

    def begin_call(self, step: int, branch: str, layout: TokenLayout) -> None:
        self._place = (step, branch)

    def changes_attention(self, block: int) -> bool:
        step, branch = self._place
        wanted = self.wanted
        return branch == "conditional" and step in wanted["step"] and block in wanted["block"]

    def attention_inputs(self, block: int, inputs: AttentionInputs) -> AttentionInputs:
        step = self._place[0]
        rows = present_positions(self._queries, self._run, inputs.query.shape[1])
        if len(rows) < len(self._queries):
            raise InputError(f"Some of the chosen {self.group} tokens are absent in step {step}.")
        columns = present_positions(self._keys, self._run, inputs.key.shape[1])
        found = query_rows(inputs, torch.as_tensor(rows), torch.as_tensor(columns))
        values = found[0, self.wanted["head"]].float().cpu().numpy()
        if len(columns) < self._run.reference_tokens:
            whole = np.full((*values.shape[:2], self._run.reference_tokens), np.nan, np.float32)
            whole[..., self._run.present] = values
            values = whole
        if "head" in self.mean_over:
            values = values.mean(0, keepdims=True)
        index = {"step": step, "block": block}
        place = tuple(
            0 if name in self.mean_over else self.wanted[name].index(number)
            for name, number in index.items()
        )
        self._sum[place] += values
        self._seen.add((step, block))
        return inputs

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
