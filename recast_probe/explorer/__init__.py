"""The explorer: attention under the mouse, in a notebook or as one HTML file."""

from recast_probe.explorer.explorer import Explorer, explore
from recast_probe.explorer.recording import record_run

__all__ = ["Explorer", "explore", "record_run"]
