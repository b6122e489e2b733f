"""`recast-probe study qualitative` from a checkout; see recast_probe/recipes."""

from recast_probe._utils.ending import run_program
from recast_probe.commands.study import script

main = script("qualitative")

if __name__ == "__main__":
    run_program(main, "qualitative")
