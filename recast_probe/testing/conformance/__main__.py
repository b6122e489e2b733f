"""Print what every supported pipeline class has and what it refuses, as a Markdown table.

python -m recast_probe.testing.conformance
"""

from __future__ import annotations

from recast_probe.testing.conformance import conformance_table, supported_cases

if __name__ == "__main__":
    table = conformance_table(supported_cases()).T
    print("|", *(f"{name} |" for name in ("", *table.columns)))
    print("|", *("--- |" for _ in range(len(table.columns) + 1)))
    for name, row in table.iterrows():
        print("|", *(f"{cell} |" for cell in (name, *row)))
