"""Notebooks run from top to bottom, with few steps."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
# notebook 02 runs ten studies, of which each has its own tests
SIZES = {"STEPS": 2, "SUBJECTS": 1, "PROMPTS": 1, "MODEL": "tiny:flux-kontext"}
# no name and no module of ours outlives a notebook; torch and diffusers take seconds to import
FRESH = """
%reset -f
import sys
for _name in [each for each in sys.modules if each.split(".")[0] in ("analyses", "recast_probe")]:
    del sys.modules[_name]
%reset -f
"""


@pytest.fixture(scope="module")
def kernel():
    """One process for all notebooks."""
    with pytest.MonkeyPatch.context() as patched:
        for name, size in SIZES.items():
            patched.setenv(f"RECAST_PROBE_{name}", str(size))
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel()
        yield manager
        manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, kernel):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(FRESH))
    client = NotebookClient(notebook, km=kernel, timeout=300)
    try:
        client.execute()
    finally:
        client.kc.stop_channels()  # the kernel is not the client's own, so it leaves them open
    outputs = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    pictures = [out for out in outputs if "image/png" in out.get("data", {})]
    assert len(pictures) >= 3


def test_stored_outputs_are_there_and_small():
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert sum(bool(cell.outputs) for cell in code) >= len(code) - 1
        assert path.stat().st_size < 5_000_000


def test_the_quick_start_is_quick():
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    assert len(notebook.cells) < 12
