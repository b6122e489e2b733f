"""Print what every supported pipeline class has and what it refuses, as a Markdown table; or put
the table of all families into a file.

python -m recast_probe.testing.conformance
python -m recast_probe.testing.conformance --write README.md
python -m recast_probe.testing.conformance --write README.md --announced
"""

from __future__ import annotations

import argparse
from pathlib import Path

from recast_probe._utils.ending import run_program
from recast_probe.testing.conformance import conformance_table, supported_cases
from recast_probe.testing.conformance.readme_table import write_families_table


def main(arguments: list[str] | None = None) -> None:
    """Examine every case for every property; print what was found, or write it."""
    parser = argparse.ArgumentParser(
        prog="python -m recast_probe.testing.conformance", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--write", type=Path, help="a file with the markers of the short table")
    parser.add_argument(
        "--announced", action="store_true", help="write what the cases announce, unexamined"
    )
    chosen = parser.parse_args(arguments)
    if chosen.write is not None:
        write_families_table(chosen.write, supported_cases(), examine=not chosen.announced)
        return
    if chosen.announced:
        parser.error("--announced goes with --write")
    table = conformance_table(supported_cases()).T
    print("|", *(f"{name} |" for name in ("", *table.columns)))
    print("|", *("--- |" for _ in range(len(table.columns) + 1)))
    for name, row in table.iterrows():
        print("|", *(f"{cell} |" for cell in (name, *row)))


if __name__ == "__main__":
    run_program(main, "conformance")
