"""Run notebooks from top to bottom and store their outputs: python notebooks/execute.py FILE...

Pictures are stored with 256 colours, and widgets without what they hold, so that a notebook stays
small. Bars of progress are left out.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

COLOURS = 256
WIDGET = "application/vnd.jupyter.widget-view+json"
TIMEOUT = 1800  # seconds a cell


def execute(path: Path) -> None:
    """Run one notebook in its own folder and write it back."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [_smaller(each) for each in cell.outputs if not _bar(each)]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)


def _bar(output: Any) -> bool:
    """True for what is written to standard error, and for a bar of progress that is a widget."""
    if output.output_type == "stream":
        return output.name == "stderr"
    return output.output_type == "display_data" and WIDGET in output.data


def _smaller(output: Any) -> Any:
    data = output.get("data", {})
    if "image/png" in data:
        with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as image:
            few = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        few.save(buffer, format="PNG", optimize=True)
        data["image/png"] = base64.b64encode(buffer.getvalue()).decode("ascii")
    return output


if __name__ == "__main__":
    for name in sys.argv[1:]:
        execute(Path(name))
