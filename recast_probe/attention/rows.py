"""What is summed over rows of attention probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from recast_probe.attention.sums import PairSums

# below this mass, what a row has on single keys comes near the least number of float32
FAINT = 1e-30
FAINT_ROWS = 64


def row_entropy(surprise: Tensor, mass: Tensor) -> Tensor:
    """Bits of rows p / mass, from sum(p ln p) and mass; 0 where a row has no mass at all."""
    safe = mass.clamp_min(torch.finfo(mass.dtype).tiny)
    return ((safe.log() - surprise / safe) / math.log(2)).clamp_min(0) * (mass > 0)


def row_entropies(
    sums: PairSums, log_probabilities: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Mean entropy over the rows, each counted once and each by its mass.

    Rows whose mass is near or below what float32 holds are made again, from logarithms that are
    shifted to their largest one; the entropy of a row does not hang on its mass.

    Args:
        sums: of scored rows.
        log_probabilities: given row numbers, their logarithms (batch, head, row, column).

    Returns:
        Bits, float32 (batch, head) each: the mean over rows, and the mean weighted by row mass.
        Rows that see none of the columns have 0 bits.
    """
    assert sums.row_surprise is not None
    bits = row_entropy(sums.row_surprise, sums.row_mass)
    log_mass = sums.row_mass.log()
    faint = sums.row_mass < FAINT
    if bool(faint.any()):
        for rows in faint.any(0).any(0).nonzero()[:, 0].split(FAINT_ROWS):
            logarithms = log_probabilities(rows)
            again = logarithms.logsumexp(-1)
            share = (logarithms - again.nan_to_num(neginf=0.0)[..., None]).exp()
            entropy = -torch.special.xlogy(share, share).sum(-1) / math.log(2)
            bits[..., rows] = torch.where(faint[..., rows], entropy, bits[..., rows])
            log_mass[..., rows] = torch.where(faint[..., rows], again, log_mass[..., rows])
    weights = log_mass.softmax(-1).nan_to_num(0.0)
    return bits.float().mean(-1), (weights * bits).sum(-1).float()


def entropy_bits(weights: Tensor) -> Tensor:
    """Entropy of weights / sum(weights) along the last axis, in bits."""
    share = weights / weights.sum(-1, keepdim=True)
    return -torch.special.xlogy(share, share).sum(-1) / math.log(2)


def distance_from_one(sums: Tensor) -> float:
    """Largest distance of any sum from 1; infinite where one is not a number."""
    difference = (sums - 1).abs().max()
    return float(difference) if torch.isfinite(difference) else math.inf
