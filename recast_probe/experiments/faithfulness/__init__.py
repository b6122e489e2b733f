"""How faithful a ranking of reference tokens is as an explanation: what removing them does."""

from __future__ import annotations

from recast_probe.experiments.faithfulness.agreement import group_agreement
from recast_probe.experiments.faithfulness.curves import (
    Curves,
    DoseResponse,
    curve_area,
    dose_response,
)
from recast_probe.experiments.faithfulness.sanity import (
    randomised_blocks,
    sanity_checks,
    shuffled_reference,
)
from recast_probe.experiments.faithfulness.subset_value import (
    SHARES,
    SubsetValue,
    faithfulness_curves,
)

__all__ = [
    "SHARES",
    "Curves",
    "DoseResponse",
    "SubsetValue",
    "curve_area",
    "dose_response",
    "faithfulness_curves",
    "group_agreement",
    "randomised_blocks",
    "sanity_checks",
    "shuffled_reference",
]
