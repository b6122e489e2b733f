"""Muon for the matrices of a transformer's blocks, AdamW for everything else.

From scratch, after 14,400 samples at 64 pixels, the error of a copied subject is 0.372 with both
and 0.430 with AdamW alone.
"""

from __future__ import annotations

import torch
from torch import nn

MUON_RATE = 10.0  # times AdamW's learning rate
WEIGHT_DECAY = 0.01
_BLOCKS = ("transformer.transformer_blocks.", "transformer.single_transformer_blocks.")


class Optimisers:
    """Both optimisers of a model as one, with a state of named tensors.

    Args:
        blocks: how the names of blocks begin; a `FlowModel`'s unless given.
    """

    def __init__(self, model: nn.Module, blocks: tuple[str, ...] = _BLOCKS) -> None:
        named = dict(model.named_parameters())
        matrices = {n for n, p in named.items() if n.startswith(blocks) and p.ndim == 2}
        muon = torch.optim.Muon(
            [(name, named[name]) for name in named if name in matrices],
            weight_decay=WEIGHT_DECAY,
            momentum=0.95,
            nesterov=True,
        )
        adamw = torch.optim.AdamW(
            [(name, named[name]) for name in named if name not in matrices],
            weight_decay=WEIGHT_DECAY,
        )
        self._named = named
        self._parts: dict[torch.optim.Optimizer, float] = {muon: MUON_RATE, adamw: 1.0}
        self._owner = {name: muon if name in matrices else adamw for name in named}

    def step(self, learning_rate: float) -> None:
        """One step with AdamW's `learning_rate`; the gradients are gone after it."""
        for part, factor in self._parts.items():
            for group in part.param_groups:
                group["lr"] = factor * learning_rate
            part.step()
            part.zero_grad()

    def state(self) -> dict[str, torch.Tensor]:
        """Every tensor that a step leaves behind, by its kind and its weight's name."""
        return {
            f"{kind}/{name}": value
            for name, weight in self._named.items()
            for kind, value in self._owner[name].state.get(weight, {}).items()
        }

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Resume from what `state` gave."""
        for key, value in state.items():
            kind, name = key.split("/", 1)
            weight = self._named[name]
            # AdamW counts its steps on the CPU
            here = value if kind == "step" else value.to(weight)
            self._owner[name].state[weight][kind] = here.clone()
