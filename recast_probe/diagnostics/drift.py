"""Drift of the reference's keys and values over the steps, labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from recast_probe.diagnostics.results import Result, Words

QUANTITIES = ("key", "value", "output")


@dataclass(frozen=True, repr=False)
class Drift(Result):
    """Relative errors of old keys and values against new ones; see ``RecordDrift``.

    Attributes:
        errors: float64 variables "key", "value" and "output", each (source, branch, step, block);
            NaN in steps up to the source.
        selection: what was compared.
    """

    name: ClassVar[str] = "drift"
    title: ClassVar[str] = "Can keys and values be reused?"
    words: ClassVar[Words] = {
        f"{name}_{part}": (f"Drift of {named}, {when}", "Relative error of what was kept.")
        for part, when in (("mean", "mean over steps and blocks"), ("last_step", "last step"))
        for name, named in (("key", "keys"), ("value", "values"), ("output", "the output"))
    }

    errors: xr.Dataset
    selection: str

    @classmethod
    def build(
        cls,
        found: Mapping[tuple[int, str], Mapping[str, np.ndarray]],
        timesteps: Sequence[float] | np.ndarray,
        block_kinds: Sequence[str],
        model: str,
    ) -> Drift:
        """From the outcome of ``RecordDrift``: by (source, branch) and quantity, float64 (step,
        block)."""
        sources = sorted({source for source, _ in found})
        branches = list(dict.fromkeys(branch for _, branch in found))
        shape = (len(sources), len(branches), len(timesteps), len(block_kinds))
        values = {name: np.full(shape, np.nan) for name in QUANTITIES}
        for (source, branch), each in found.items():
            for name in QUANTITIES:
                values[name][sources.index(source), branches.index(branch)] = each[name]
        dims = ("source", "branch", "step", "block")
        errors = xr.Dataset(
            {name: (dims, each) for name, each in values.items()},
            coords={
                "source": sources,
                "branch": branches,
                "step": np.arange(len(timesteps)),
                "timestep": ("step", np.asarray(timesteps, np.float64)),
                "block": np.arange(len(block_kinds)),
                "block_kind": ("block", list(block_kinds)),
            },
        )
        return cls(errors, f"{model}, from step {', '.join(map(str, sources))}")

    def summary(self) -> dict[str, float]:
        return {f"{name}_mean": float(self.errors[name].mean()) for name in QUANTITIES} | {
            f"{name}_last_step": float(self.errors[name].isel(step=-1).mean())
            for name in QUANTITIES
        }

    def __repr__(self) -> str:
        found = self.summary()
        text = ", ".join(f"{name} {found[f'{name}_mean']:.3f}" for name in QUANTITIES)
        return f"Drift(mean relative error: {text}; {self.selection})"
