"""The same study here and on workers of Ray: `python -m benchmarks.engines`.

Whole seconds hold the start of Ray and the opening of the model in each worker. Seconds a run are
those between the first and the last run that was stored, for each run after the first.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recast_probe import datasets
from recast_probe._utils.ending import run_program
from recast_probe.probe import Probe
from recast_probe.studies import Store, run_study
from recast_probe.studies.comparison import Arm, Comparison, units
from recast_probe.studies.tables import markdown

BUDGET = 64
ARMS = {
    "full": Arm("full"),
    "recast": Arm("recast", BUDGET),
    "random": Arm("random", BUDGET),
    "none": Arm("none"),
}


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Run the study in each way, and print a row for each.

    Raises:
        AssertionError: two ways made two tables.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="of Ray")
    options = parser.parse_args(arguments)
    probe = Probe.pocket()
    cases = units(datasets.load_benchmark("pocket", subjects=options.subjects, prompts=1))
    ways: dict[str, dict[str, Any]] = {"local": {}}
    ways |= {f"Ray, {n} workers": {"engine": "ray", "workers": n} for n in options.workers}
    rows: list[dict[str, Any]] = []
    tables = []
    with tempfile.TemporaryDirectory() as name:
        for way, settings in ways.items():
            store = Store(Path(name) / way, probe.identity())
            study = Comparison(probe, ARMS, store, steps=options.steps)
            began = time.perf_counter()
            table = run_study(cases, list(ARMS), study, store, progress=False, **settings)
            whole = time.perf_counter() - began
            stored = sorted(path.stat().st_mtime for path in store.folder.glob("*-*.json"))
            each = (stored[-1] - stored[0]) / (len(stored) - 1)
            tables.append(table.drop(columns="seconds"))
            assert tables[-1].equals(tables[0]), f"{way} made another table"
            row = {"engine": way, "whole seconds": round(whole, 1), "seconds a run": each}
            rows.append(row | {"load": f"{os.getloadavg()[0]:.1f}"})
    print(markdown(rows))
    return rows


if __name__ == "__main__":
    run_program(main, "engines")
