"""Speed and memory, measured as ratios within one run."""

import sys

from recast_probe._utils.ending import stoppable_while_importing

if sys.argv[0] == "-m":  # `python -m` imports this before the script and all that it needs
    stoppable_while_importing()
