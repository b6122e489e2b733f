"""`python -m recast_probe`: the same as the `recast-probe` command."""

from __future__ import annotations

from recast_probe.cli import main

if __name__ == "__main__":
    main()
