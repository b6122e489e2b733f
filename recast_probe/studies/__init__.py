"""Studies of many runs: arms to compare, a store on disk, and paired statistics."""

from __future__ import annotations

from recast_probe.studies.dose_response import DoseResponse, dose_response
from recast_probe.studies.engine import Outcome, Unit, run_study
from recast_probe.studies.gate.loss_limit import Limit
from recast_probe.studies.gate.noninferiority import NonInferiority, non_inferiority
from recast_probe.studies.reference_gain import reference_gain
from recast_probe.studies.statistics import compare, holm, means, retention
from recast_probe.studies.store import Record, Store
from recast_probe.studies.tables import load_table, markdown, save_table

__all__ = [
    "DoseResponse",
    "Limit",
    "NonInferiority",
    "Outcome",
    "Record",
    "Store",
    "Unit",
    "compare",
    "dose_response",
    "holm",
    "load_table",
    "markdown",
    "means",
    "non_inferiority",
    "reference_gain",
    "retention",
    "run_study",
    "save_table",
]
