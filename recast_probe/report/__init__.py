"""Reports: one self-contained HTML file from numbers, figures and tables."""

from recast_probe.report.numbers import Number
from recast_probe.report.page import Section, Verdict, write_report
from recast_probe.report.pictures import Picture

__all__ = ["Number", "Picture", "Section", "Verdict", "write_report"]
