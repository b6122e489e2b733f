"""Chromium for tests, and axe-core, which looks for what keeps people from reading a page.

`bash .ci/browser` fetches both where it can. Without them the tests are skipped and say so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
# its licence, MPL-2.0, is not this repository's, so it is fetched and not stored
AXE = Path(__file__).parents[1] / "out" / "axe" / "package" / "axe.min.js"
# playwright gives every start a fresh folder for its profile
ARGUMENTS = [
    f"--{name}"
    for name in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
        "disable-background-networking", "disable-component-update", "disable-sync",
    )
]  # fmt: skip
SCHEMES = ("light", "dark")


@contextmanager
def chromium() -> Iterator[Any]:
    """A started browser; skips the test where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed; bash .ci/browser installs it")
    with sync_api.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield found
        finally:
            found.close()


def hindrances(page: Any) -> list[str]:
    """What axe-core calls serious or critical on an open page, one line each.

    Skips the test where axe-core is not there.
    """
    if not AXE.is_file():
        pytest.skip("axe-core is not there; bash .ci/browser fetches it")
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    assert len(found["passes"]) > 5, "axe-core has looked at the page"
    return [
        f"{each['impact']}: {each['help']}: {node['html'][:160]} {node['failureSummary'][:300]}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def check(browser: Any, file: Path, schemes: tuple[str, ...] = SCHEMES) -> None:
    """Nothing serious on a page, wide and on a phone, in these colour schemes."""
    for scheme in schemes:
        for width in (1100, 390):
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page.goto(f"file://{file}")
            assert hindrances(page) == [], (file, scheme, width)
            page.close()
