"""Compiles the kernel for GPUs that are not there: `python -m tests.attention.triton_for_gpus`.

Prints, by architecture, dtype and head dim, the bytes of shared memory and how many registers of a
thread were spilled to memory.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from recast_probe.attention.triton_sums import _sum_block, blocks_for

BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}


def compiled(capability: int, dtype: str, width: int, scored: bool) -> dict[str, int]:
    padded = max(16, triton.next_power_of_2(width))
    rows, columns, warps = blocks_for(padded, BYTES[dtype])
    constants = {"SCORED": scored, "PADDED_WIDTH": padded, "ROWS": rows, "COLUMNS": columns}
    names = _sum_block.arg_names
    signature = dict.fromkeys(names, "i32")
    signature |= {"query": f"*{dtype}", "key": f"*{dtype}", "scale": "fp32"}
    signature |= dict.fromkeys(("log_sum_exp", "row_mass", "row_surprise", "column_sum"), "*fp32")
    signature |= dict.fromkeys(constants, "constexpr")
    # the innermost strides of an attention call are 1, as Triton sees when it is called
    constants |= {"query_dim": 1, "key_dim": 1, "lse_row": 1}
    signature |= dict.fromkeys(("query_dim", "key_dim", "lse_row"), "constexpr")
    # and pointers are aligned
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if "*" in signature[n]}
    source = ASTSource(
        fn=_sum_block,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs=aligned,
    )
    kernel = triton.compile(
        source,
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": warps, "num_stages": 2},
    )
    return {"shared": kernel.metadata.shared, **assembled(kernel.asm["ptx"], capability)}


def assembled(ptx: str, capability: int) -> dict[str, int]:
    """Registers and spilled bytes, by the assembler that comes with Triton."""
    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    assembler = shutil.which("ptxas", path=str(folder))
    if assembler is None:
        return {}
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        architecture = f"sm_{capability}{'a' if capability >= 90 else ''}"
        run = subprocess.run(
            [assembler, "-v", f"--gpu-name={architecture}", file.name, "-o", "/dev/null"],
            capture_output=True,
            text=True,
            check=True,
        )
    registers = re.search(r"Used (\d+) registers", run.stderr)
    spilled = re.search(r"(\d+) bytes spill stores", run.stderr)
    assert registers, run.stderr
    assert spilled, run.stderr
    return {"registers": int(registers[1]), "spilled": int(spilled[1])}


def main() -> None:
    cases = {
        f"sm_{capability}, {dtype}, head dim {width}, {'scored' if scored else 'mass only'}": (
            compiled(capability, dtype, width, scored)
        )
        for capability, dtype, width, scored in (
            (80, "bf16", 128, True),
            (90, "bf16", 128, True),
            (90, "bf16", 128, False),
            (90, "fp32", 128, True),
        )
    }
    json.dump(cases, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
