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
from recast_probe.layout import GROUPS, TokenLayout
from recast_probe.profiles.maps import AttentionMaps
from recast_probe.profiles.profile import AttentionProfile

MASS_TOLERANCE = 1e-3
PART_BYTES = 64 * 2**20
"""Of whole rows at a time, over all keys."""


@dataclass(frozen=True, eq=False)
class RecordRows(Intervention):
    """Record rows of attention; change nothing. The run's outcome is the ``RowRecorder``.

    Attributes:
        tokens: int64, indices of query tokens within their group.
        group: their token group.
        wanted: "step", "block" and "head", each with the indices to record.
        mean_over: those of the three that are averaged as they come.
        text: also what each query gives every text token.
    """

    tokens: np.ndarray
    group: str
    wanted: Mapping[str, list[int]]
    mean_over: tuple[str, ...]
    text: bool = False

    def shape(self, keys: int) -> list[int]:
        """Of the rows: step, block, head, query and key."""
        kept = [1 if name in self.mean_over else len(each) for name, each in self.wanted.items()]
        return [*kept, len(self.tokens), keys]

    def nbytes(self, layout: TokenLayout) -> int:
        """Bytes that the maps will need, with the share of each token group."""
        keys = layout.reference_tokens + len(GROUPS) + (layout.text if self.text else 0)
        return 4 * int(np.prod(self.shape(keys), dtype=np.int64))

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
        layout = run.layout_of("conditional")
        self._keys = {group: positions(group, run) for group in GROUPS}
        sizes = {"maps": run.reference_tokens, "shares": len(GROUPS)}
        if settings.text:
            sizes["text"] = layout.text
        self._sums = {
            name: np.zeros(settings.shape(size), np.float32) for name, size in sizes.items()
        }
        self._seen: set[tuple[int, int]] = set()

    def attention_logits(self, block: int, inputs: AttentionInputs) -> AttentionInputs:
        rows = present_positions(self._queries, self.run, inputs.query.shape[1])
        if len(rows) < len(self._queries):
            raise InputError(
                f"Step {self.step} does not have all of the chosen {self.group} tokens."
            )
        index = {"step": self.step, "block": block}
        place = tuple(
            0 if name in self.mean_over else self.wanted[name].index(number)
            for name, number in index.items()
        )
        count = inputs.key.shape[1]
        part = max(1, PART_BYTES // (4 * inputs.key.shape[2] * count))
        for start in range(0, len(rows), part):
            chosen = slice(start, start + part)
            self._add(place, chosen, self._parts(inputs, rows[chosen], count))
        self._seen.add((self.step, block))
        return inputs

    def _parts(
        self, inputs: AttentionInputs, rows: np.ndarray, count: int
    ) -> dict[str, np.ndarray]:
        """What some queries give reference tokens, groups and text, each (head, query, key)."""
        keys = {
            group: present_positions(full, self.run, count) for group, full in self._keys.items()
        }
        whole = query_rows(inputs, torch.as_tensor(rows), torch.arange(count))[
            0, self.wanted["head"]
        ].float()
        found = {group: whole[..., torch.as_tensor(at)] for group, at in keys.items()}
        parts = {
            "maps": found["reference"].cpu().numpy(),
            "shares": torch.stack([found[group].sum(-1) for group in GROUPS], -1).cpu().numpy(),
            "text": found["text"].cpu().numpy(),
        }
        if len(keys["reference"]) < self.run.reference_tokens:
            full = np.full((*whole.shape[:2], self.run.reference_tokens), np.nan, np.float32)
            full[..., self.run.present] = parts["maps"]
            parts["maps"] = full
        return parts

    def _add(self, place: tuple[int, ...], queries: slice, parts: Mapping[str, np.ndarray]) -> None:
        for name, total in self._sums.items():
            values = parts[name]
            if "head" in self.mean_over:
                values = values.mean(0, keepdims=True)
            total[place][:, queries] += values

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
        left = [name for name in self.wanted if name not in self.mean_over]
        shape = [len(self.wanted[name]) for name in left]
        found = {}
        for name, total in self._sums.items():
            for averaged_over in {"step", "block"} & set(self.mean_over):
                total /= len(self.wanted[averaged_over])
            found[name] = total.reshape(*shape, *total.shape[-2:])
        if self.group == "generation" and len(self.tokens) == profile.layout.generation.size:
            self._check(found["maps"].sum(-1), profile)
        layer = row = column = np.full(len(self.tokens), -1)
        if self.group == "generation":
            layer, row, column = (at[self.tokens] for at in profile.layout.generation.coordinates())
        reference, token_row, token_column = profile.layout.reference_coordinates()
        text = profile.selection_text()
        averaged = f", mean over {' and '.join(self.mean_over)}s" if self.mean_over else ""
        labels = {
            **{name: np.array(self.wanted[name]) for name in left},
            "query": self.tokens,
            "query_layer": ("query", layer),
            "query_row": ("query", row),
            "query_column": ("query", column),
        }
        data = xr.DataArray(
            found["maps"],
            dims=(*left, "query", "token"),
            coords={
                **labels,
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
        keys: dict[str, tuple[str, Any]] = {"shares": ("key_group", list(GROUPS))}
        if "text" in found:
            keys["text"] = ("text_token", list(range(profile.layout.text)))
        beside = {
            name: xr.DataArray(
                found[name], dims=(*left, "query", dim), coords={**labels, dim: values}
            )
            for name, (dim, values) in keys.items()
        }
        return AttentionMaps(data, **beside)

    def _check(self, row_sums: np.ndarray, profile: AttentionProfile) -> None:
        if np.isnan(row_sums).any():  # tokens were pruned
            return
        mass = profile.mass.sel(query_group="generation", key_group="reference")
        error = abs(float(row_sums.mean()) - float(mass.mean()))
        if error > MASS_TOLERANCE:
            raise VerificationError(
                f"The maps miss the attention mass of the same run by {error:.2g}."
            )
