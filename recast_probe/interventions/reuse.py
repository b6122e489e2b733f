"""Reuse the reference's keys and values, so that no reference token is computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recast_probe._utils.checks import check_int
from recast_probe.errors import InputError
from recast_probe.interventions.base import CallHook, Intervention, RunContext
from recast_probe.interventions.needs import Needs


@dataclass(frozen=True)
class ReuseReference(Intervention):
    """Take keys and values of the reference from an earlier step instead of computing them.

    A storing step computes the full reference and keeps, for every block and branch, the keys and
    values of its tokens as attention sees them, rotary positions included. In the steps after it
    the transformer computes text and generation tokens only; their queries see these keys and
    values after their own. Keys and values depend on the timestep and on what the reference tokens
    read from the other tokens, so they are those of the storing step and no longer exact: see
    ``recast_probe.drift``.

    Which of the stored tokens a step attends to is decided by the other interventions, such as
    ``Prune`` or ``Recast`` with any budget; without any, it is all of them. A storing step is full
    whatever they drop, so a token that was never kept before can be attended to later.

    Memory: two tensors (batch, reference tokens, heads, dim) for every block and branch, as long
    as the run lasts; the provenance states the bytes.

    Attributes:
        start: first step that reuses; the step before it stores.
        refresh: store again in these steps; or a number, to store again every so many steps. None
            never does.
        device: where keys and values are kept, such as "cpu"; None keeps them where they are
            computed. They are moved at every use.

    Raises:
        InputError: a start below 1, or a refresh that is not a step after the start.

    Examples:
        >>> ReuseReference(refresh=4).storing_steps(12)
        (0, 4, 8)
    """

    start: int = 1
    refresh: int | tuple[int, ...] | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", check_int("start", self.start, 1))
        if self.refresh is None:
            return
        if isinstance(self.refresh, Sequence | np.ndarray):
            steps = sorted({check_int("refresh", step, self.start) for step in self.refresh})
            object.__setattr__(self, "refresh", tuple(steps))
        else:
            object.__setattr__(self, "refresh", check_int("refresh", self.refresh, 1))

    def storing_steps(self, steps: int) -> tuple[int, ...]:
        """Steps of a run of so many steps that compute and store the full reference."""
        first = self.start - 1
        if self.refresh is None:
            return (first,)
        if isinstance(self.refresh, tuple):
            return (first, *self.refresh)
        return tuple(range(first, steps, self.refresh))

    def needs(self, run: RunContext) -> Needs:
        renews = self.storing_steps(run.steps)
        reuses = set(range(self.start, run.steps)).difference(renews)
        return Needs(renews=renews, reuses=reuses, inside_attention=True)

    def prepare(self, run: RunContext) -> None:
        if not run.reference_tokens:
            raise InputError("There are no reference tokens to reuse; give a reference image.")
        last = self.storing_steps(run.steps)[-1]
        if last >= run.steps:
            raise InputError(
                f"{self!r} stores keys and values in step {last}, but the steps of this run are 0 "
                f"to {run.steps - 1}."
            )

    def hook(self, run: RunContext) -> ReusedKeys:
        return ReusedKeys(self, run)


class ReusedKeys(CallHook):
    """Keys and values of one run, by branch and block."""

    def __init__(self, settings: ReuseReference, run: RunContext) -> None:
        self._run, self._device = run, settings.device
        needs = settings.needs(run)
        self._storing, self._reusing = set(needs.renews), set(needs.reuses)
        self._stored: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}
        # by branch and block: the tokens that the present step attends to, their keys and values
        self._selected: dict[tuple[str, int], tuple[np.ndarray, tuple[Tensor, Tensor]]] = {}
        self._bytes = 0

    def stores_keys(self, block: int) -> bool:
        # nothing is kept for a step that stores anew
        return self.step in self._storing and self.step + 1 in self._reusing

    def store_keys(self, block: int, key: Tensor, value: Tensor) -> None:
        reference = self._run.layout_of(self.branch).span("reference")
        place = (self.branch, block)
        device = self._device or key.device
        # a copy: a view would keep the whole sequence alive
        stored = tuple(
            each[:, reference].to(device, copy=True).contiguous() for each in (key, value)
        )
        self._stored[place] = (stored[0], stored[1])
        self._selected.pop(place, None)
        self._bytes = max(self._bytes, self.bytes)

    @property
    def bytes(self) -> int:
        """Bytes of the stored keys and values."""
        return sum(
            each.element_size() * each.nelement() for pair in self._stored.values() for each in pair
        )

    def stored_keys(self, block: int) -> tuple[Tensor, Tensor] | None:
        if self.step not in self._reusing:
            return None
        place, kept = (self.branch, block), self._run.present
        key, value = self._stored[place]
        if kept is None:
            return key, value
        last = self._selected.get(place)
        if last is None or not np.array_equal(last[0], kept):
            index = torch.as_tensor(kept, device=key.device)
            last = (kept, (key.index_select(1, index), value.index_select(1, index)))
            self._selected[place] = last
        return last[1]

    def clear(self) -> None:
        self._stored.clear()
        self._selected.clear()

    def facts(self) -> dict[str, Any]:
        return {
            "run": {
                "stored_steps": sorted(self._storing),
                "reused_steps": sorted(self._reusing),
                "stored_bytes": self._bytes,
            }
        }
