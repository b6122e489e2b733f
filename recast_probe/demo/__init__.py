"""The main job on the bundled model: profile, diagnose, intervene, report."""

from __future__ import annotations

from recast_probe.demo.run import DemoSettings, run_demo

__all__ = ["DemoSettings", "run_demo"]
