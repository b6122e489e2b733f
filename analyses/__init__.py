"""One script for each table, figure and claim: `python -m analyses.table_1 --quick`."""

import sys

from recast_probe._utils.ending import stoppable_while_importing

if sys.argv[0] == "-m":  # `python -m` imports this before the script and all that it needs
    stoppable_while_importing()
