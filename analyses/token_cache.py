"""`recast-probe study token_cache` from a checkout; see recast_probe/recipes."""

from recast_probe._utils.ending import run_program
from recast_probe.commands.study import script

main = script("token_cache")

if __name__ == "__main__":
    run_program(main, "token_cache")
