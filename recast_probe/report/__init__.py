"""Reports: one self-contained HTML file from numbers, figures and tables."""

from recast_probe.report.numbers import Number
from recast_probe.report.page import Section, write_report

__all__ = ["Number", "Section", "write_report"]
