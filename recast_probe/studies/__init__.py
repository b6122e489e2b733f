"""Many runs: what is compared with what, kept on disk as they come, and judged in pairs."""

from __future__ import annotations

from recast_probe.studies.statistics import compare, holm, means, retention
from recast_probe.studies.tables import markdown, save_table

__all__ = ["compare", "holm", "markdown", "means", "retention", "save_table"]
