"""Notebooks run from top to bottom, with few steps."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch):
    sizes = {"STEPS": 3, "SUBJECTS": 1, "PROMPTS": 1}
    for name, size in sizes.items():
        monkeypatch.setenv(f"RECAST_PROBE_{name}", str(size))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
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
