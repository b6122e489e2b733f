"""The explorer in JupyterLab: a real server and kernel, driven in a browser."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from tests.browser import chromium

pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")

STARTED_SECONDS = 120
CELL = """
import numpy as np
import torch

torch.set_num_threads(1)
import recast_probe as rp
from recast_probe.explorer import record_run
from recast_probe.testing import tiny

probe, image = rp.Probe.tiny("flux-kontext"), tiny.tiny_image()
result, maps = record_run(probe, image, "a fox", steps=2, progress=False)
explorer = rp.explore(result, maps, image=image, probe=probe)
explorer
"""
# what the page asked for, and whether the same is made without a page
AFTER = """
from recast_probe.interventions import Keep

made = explorer.made[-1]
kept = probe.generate(image, "a fox", steps=2, interventions=[Keep(BRUSHED)], progress=False)
print("kept", made.reference_tokens_per_step, np.array_equal(made.image, kept.image))
"""


@pytest.fixture
def address(tmp_path) -> Iterator[str]:
    """Of a server in an empty folder; it ends with the test."""
    token = secrets.token_hex(16)
    own = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "RUNTIME")}
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"),
        "--expose-app-in-browser",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={tmp_path}",
        # no request for news or extensions: the test must not depend on a network
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
        "--ServerApp.log_level=ERROR",
    ]
    with (tmp_path / "server.txt").open("w") as log:
        server = subprocess.Popen(
            command, env={**os.environ, **own}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            yield f"{_where(server, tmp_path / 'runtime')}lab/tree/one.ipynb?token={token}"
        finally:
            server.terminate()
            server.wait(30)


def _where(server: subprocess.Popen, runtime: Path) -> str:
    """The address that a server writes down, once it answers there."""
    last = time.monotonic() + STARTED_SECONDS
    while time.monotonic() < last and server.poll() is None:
        for file in runtime.glob("jpserver-*.json"):
            found = json.loads(file.read_text("utf-8"))
            with urllib.request.urlopen(f"{found['url']}api?token={found['token']}") as answer:
                assert answer.status == 200
            return found["url"]
        time.sleep(0.2)
    raise AssertionError("JupyterLab did not start.")


def test_the_widget_runs_in_jupyterlab(address, tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, tmp_path / "one.ipynb")
    trouble: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1200})
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                None
                if asked.url.startswith(
                    ("http://localhost:", "http://127.0.0.1:", "data:", "blob:")
                )
                else trouble.append(asked.url)
            ),
        )
        page.goto(address)
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
        page.get_by_text("| Idle").wait_for(timeout=60_000)  # the kernel is there
        page.evaluate("() => void jupyterapp.commands.execute('notebook:run-all-cells')")
        explorer = page.locator(".recast-explorer[data-ready=yes]")
        explorer.wait_for(timeout=120_000)
        canvas = explorer.locator("figure.reference canvas")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()

        def at(row: float, column: float) -> tuple[float, float]:
            return box["x"] + column * box["width"] / 4, box["y"] + row * box["height"] / 4

        page.mouse.move(*at(2.5, 1.5))
        explorer.locator(".sentence", has_text="row 2, column 1").wait_for()
        # a brush over the first row
        page.mouse.move(*at(0.2, 0.2))
        page.mouse.down()
        page.mouse.move(*at(0.8, 3.8), steps=5)
        page.mouse.up()
        explorer.get_by_text("Prune to the brushed tokens").click()
        explorer.locator(".made img").last.wait_for(timeout=120_000)
        page.evaluate(
            """text => {
                const { content } = jupyterapp.shell.currentWidget;
                content.model.sharedModel.addCell({ cell_type: 'code', source: text });
                content.activeCellIndex = content.widgets.length - 1;
                void jupyterapp.commands.execute('notebook:run-cell');
            }""",
            AFTER.replace("BRUSHED", "(0, 1, 2, 3)"),
        )
        page.get_by_text("kept (4, 4) True").wait_for(timeout=120_000)
    assert trouble == []
