"""The gate: does a way of saving work lose less than a limit, and what else costs as little?"""

from __future__ import annotations

from recast_probe.studies.gate.decide import gate
from recast_probe.studies.gate.result import Against, ArmCost, Gate

__all__ = ["Against", "ArmCost", "Gate", "gate"]
