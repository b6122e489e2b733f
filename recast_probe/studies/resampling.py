"""Intervals and sign flips of studies, under the names that studies use.

The methods are those of every other face: `diagnostics.intervals` and `diagnostics.inference`.
"""

from __future__ import annotations

from recast_probe.diagnostics.inference import sign_flip_p_value
from recast_probe.diagnostics.intervals import difference_interval
from recast_probe.diagnostics.intervals import mean_interval as bootstrap
from recast_probe.diagnostics.intervals import ratio_interval as bootstrap_ratio

__all__ = ["bootstrap", "bootstrap_ratio", "difference_interval", "sign_flip_p_value"]
