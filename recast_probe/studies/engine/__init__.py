"""Runs the units of a study that are missing from its store, here or on workers of Ray."""

from __future__ import annotations

from recast_probe.studies.engine.run import Outcome, Unit, run_study

__all__ = ["Outcome", "Unit", "run_study"]
