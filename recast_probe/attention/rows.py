"""What is summed over rows of attention probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def row_entropy(surprise: Tensor, mass: Tensor) -> Tensor:
    """Bits of rows p / mass, from sum(p ln p) and mass; 0 where a row has no mass at all."""
    safe = mass.clamp_min(torch.finfo(mass.dtype).tiny)
    return ((safe.log() - surprise / safe) / math.log(2)).clamp_min(0) * (mass > 0)


def entropy_bits(weights: Tensor) -> Tensor:
    """Entropy of weights / sum(weights) along the last axis, in bits."""
    share = weights / weights.sum(-1, keepdim=True)
    return -torch.special.xlogy(share, share).sum(-1) / math.log(2)


def distance_from_one(sums: Tensor) -> float:
    """Largest distance of any sum from 1; infinite where one is not a number."""
    difference = (sums - 1).abs().max()
    return float(difference) if torch.isfinite(difference) else math.inf
