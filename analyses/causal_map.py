"""`recast-probe study causal_map` from a checkout; see recast_probe/recipes."""

from recast_probe._utils.ending import run_program
from recast_probe.commands.study import script

main = script("causal_map")

if __name__ == "__main__":
    run_program(main, "causal_map")
