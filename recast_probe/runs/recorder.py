"""Collects attention statistics during a run; memory follows the selection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recast_probe.attention.readout import Readout
from recast_probe.errors import VerificationError
from recast_probe.layout import TokenLayout
from recast_probe.pipelines.base import Schedule
from recast_probe.profiles.profile import AttentionProfile

MASS_TOLERANCE = 1e-3


class AttentionRecorder:
    """Statistics per (prompt, branch, step, block, head), in float32 on the CPU.

    The array of scores, (prompt, branch, step, block, head, token), is allocated at the first
    record; every selected entry must have been filled by the end of the run.

    Attributes:
        blocks: recorded blocks, global indices, ascending.
        steps: recorded steps, ascending.
        heads: recorded heads, ascending.
        selected_heads: the same, or None when it is all of them.
        pair: query group and key group that the scores are of.
        mass_table: what is read beside them, as in ``Probe.profile``.
        fired: bool, shape (branch, step, block).
        largest_mass_error: largest distance of a sum of masses from 1.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int],
        steps: Sequence[int],
        heads: Sequence[int] | None,
        available_heads: int,
        branches: Sequence[str],
        layout: TokenLayout,
        queries: str = "generation",
        mass_table: str = "all",
    ) -> None:
        self.mass_table = mass_table
        self.pair = (queries, "reference")
        self.blocks = list(blocks)
        self.steps = list(steps)
        self.selected_heads = None if heads is None else list(heads)
        self.heads = list(range(available_heads)) if heads is None else list(heads)
        self.branches = list(branches)
        self.layout = layout
        self.fired = np.zeros((len(self.branches), len(self.steps), len(self.blocks)), dtype=bool)
        self.largest_mass_error = 0.0
        self.largest_row_sum_error = 0.0
        # by variable of the profile, (prompt, branch, step, block, head, ...)
        self._arrays: dict[str, np.ndarray] = {}

    def add(
        self, readout: Readout, *, branch: str, step: int, block: int, kept: np.ndarray | None
    ) -> None:
        """Store what one attention call gave.

        Args:
            readout: its statistics.
            branch, step, block: where it belongs; step and block are indices in the model.
            kept: reference tokens that were present; the scores of the others stay NaN.

        Raises:
            VerificationError: the masses do not sum to 1, or the place is already filled.
        """
        pair = readout.pairs[self.pair]
        found = {"score": pair.score, "mass": readout.mass}
        if self.mass_table != "scores":
            found |= {
                "conditional_entropy": pair.conditional_entropy,
                "mass_weighted_conditional_entropy": pair.mass_weighted_conditional_entropy,
            }
        values = {name: each.float().cpu().numpy() for name, each in found.items()}
        place = (self.branches.index(branch), self.steps.index(step), self.blocks.index(block))
        if self.fired[place]:
            raise VerificationError(
                f"Block {block} fired twice in step {step} of the {branch} branch."
            )
        self._check_mass(values["score"], values["mass"], f"block {block}, step {step}")
        self.largest_row_sum_error = max(self.largest_row_sum_error, float(readout.row_sum_error))
        if kept is not None:
            shape = (*values["score"].shape[:2], self.layout.reference_tokens)
            whole = np.full(shape, np.nan, dtype=np.float32)
            whole[..., kept] = values["score"]
            values["score"] = whole
        for name, each in values.items():
            if name not in self._arrays:
                shape = (len(each), *self.fired.shape, *each.shape[1:])
                self._arrays[name] = np.full(shape, np.nan, dtype=np.float32)
            self._arrays[name][:, *place] = each
        self.fired[place] = True

    def _check_mass(self, score: np.ndarray, mass: np.ndarray, where: str) -> None:
        query, key = (self.layout.groups.index(group) for group in self.pair)
        rows = mass.sum(axis=-1)
        errors = [
            np.abs(rows[~np.isnan(rows)] - 1).max(initial=0.0),
            np.abs(score.sum(axis=-1) - mass[..., query, key]).max(initial=0.0),
        ]
        # written so that NaN fails
        if not max(errors) <= MASS_TOLERANCE or np.isnan(errors).any():
            raise VerificationError(
                f"Attention mass does not add up in {where}: it misses 1 by {errors[0]:.2g}, and "
                f"the scores miss the reference mass by {errors[1]:.2g}."
            )
        self.largest_mass_error = max(self.largest_mass_error, float(max(errors)))

    def check_complete(self) -> None:
        """Check that every selected block fired in every selected step and branch.

        Raises:
            VerificationError: some did not; the message names the first.
        """
        missing = np.argwhere(~self.fired)
        if len(missing):
            branch, step, block = missing[0]
            raise VerificationError(
                f"{len(missing)} of {self.fired.size} attention calls were not seen; the first is "
                f"block {self.blocks[block]} in step {self.steps[step]} of the "
                f"{self.branches[branch]} branch."
            )

    def profiles(
        self,
        schedule: Schedule,
        block_kinds: Sequence[str],
        provenances: Sequence[dict[str, Any]],
        steps: Sequence[int] | None = None,
    ) -> list[AttentionProfile]:
        """One profile per prompt.

        Args:
            schedule: the run's steps.
            block_kinds: kinds of all the model's blocks.
            provenances: one per prompt.
            steps: only these of the recorded steps.
        """
        chosen = self.steps if steps is None else list(steps)
        at = [self.steps.index(step) for step in chosen]
        return [
            AttentionProfile.build(
                **{name: each[prompt][:, at] for name, each in self._arrays.items()},
                steps=chosen,
                timesteps=schedule.timesteps[chosen],
                sigmas=schedule.sigmas[chosen],
                blocks=self.blocks,
                block_kinds=list(block_kinds),
                heads=self.heads,
                layout=self.layout,
                branches=tuple(self.branches),
                queries=self.pair[0],
                provenance=provenance,
            )
            for prompt, provenance in enumerate(provenances)
        ]
