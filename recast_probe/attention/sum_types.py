"""What a readout sums, the same from PyTorch and from the Triton kernel."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class PairSums(NamedTuple):
    """Sums over the probabilities p of some query rows and key columns, at least float32.

    Attributes:
        row_mass: (batch, head, row), sum of p over the columns; None where not read by row.
        row_surprise: the same shape, sum of p ln p over the columns; None where not scored, or not
            read by row.
        column_sum: float32 (batch, head, column), sum of p over the rows; None where not scored.
    """

    row_mass: Tensor | None
    row_surprise: Tensor | None
    column_sum: Tensor | None
