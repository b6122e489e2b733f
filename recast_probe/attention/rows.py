"""What is summed over rows of attention probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

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


class PairEntropies(NamedTuple):
    """Bits, float32 (batch, head) each; see `readout.PairStatistics`."""

    marginal: Tensor
    conditional: Tensor
    mass_weighted_conditional: Tensor


def pair_entropies(sums: PairSums, log_probabilities: Callable[[Tensor], Tensor]) -> PairEntropies:
    """Entropies of what some rows give some columns.

    No entropy hangs on the size of the mass. Where that is near or below what float32 holds, they
    are made again from logarithms, shifted to the largest one.

    Args:
        sums: of scored rows.
        log_probabilities: given row numbers, their logarithms (batch, head, row, column); minus
            infinity where a row does not see a column.

    Returns:
        The marginal entropy is NaN where no row sees a column. Rows that see none have 0 bits.
    """
    assert sums.row_mass is not None
    assert sums.row_surprise is not None
    assert sums.column_sum is not None
    marginal = entropy_bits(sums.column_sum)
    bits = row_entropy(sums.row_surprise, sums.row_mass)
    log_mass = sums.row_mass.log()
    faint = sums.row_mass < FAINT
    if bool(faint.any()):
        log_columns = torch.full_like(sums.column_sum, -math.inf)
        for rows in faint.any(0).any(0).nonzero()[:, 0].split(FAINT_ROWS):
            logarithms = log_probabilities(rows)
            again = logarithms.logsumexp(-1)
            log_columns = torch.logaddexp(log_columns, logarithms.logsumexp(-2))
            entropy = _bits(logarithms.log_softmax(-1).nan_to_num(nan=-math.inf))
            bits[..., rows] = torch.where(faint[..., rows], entropy.to(bits.dtype), bits[..., rows])
            log_mass[..., rows] = torch.where(faint[..., rows], again, log_mass[..., rows])
        # faint as a whole: all of its rows are, and were made again
        whole = sums.row_mass.sum(-1) < FAINT
        seen = whole & ~log_columns.isneginf().all(-1)
        again = _bits(log_columns.log_softmax(-1)).to(marginal.dtype)
        marginal = torch.where(seen, again, marginal)
    weights = log_mass.softmax(-1).nan_to_num(0.0)
    return PairEntropies(marginal, bits.float().mean(-1), (weights * bits).sum(-1).float())


def _bits(log_share: Tensor) -> Tensor:
    """Entropy in bits of shares whose logarithms these are; minus infinity has none."""
    share = log_share.exp()
    return -(share * log_share.masked_fill(share == 0, 0)).sum(-1) / math.log(2)


def entropy_bits(weights: Tensor) -> Tensor:
    """Entropy of weights / sum(weights) along the last axis, in bits."""
    share = weights / weights.sum(-1, keepdim=True)
    return -torch.special.xlogy(share, share).sum(-1) / math.log(2)


def distance_from_one(sums: Tensor) -> float:
    """Largest distance of any sum from 1; infinite where one is not a number."""
    difference = (sums - 1).abs().max()
    return float(difference) if torch.isfinite(difference) else math.inf
