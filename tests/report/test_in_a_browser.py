"""A report in a browser: read by axe-core, on a phone, in the dark, enlarged, and on its own."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import recast_probe as rp
from recast_probe import figures
from recast_probe.report.diagnosis import write_diagnosis
from recast_probe.testing.planted_profiles import planted
from tests.browser import SCHEMES, check, chromium, hindrances

SITE = Path(__file__).parents[2] / "out" / "docs"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    profiles = [planted(np.roll(np.arange(1.0, 17), shift)) for shift in range(3)]
    mask = np.arange(16) > 11
    found = [
        *(rp.skew(profiles[0]), rp.entropy(profiles[0]), rp.overlap(profiles[0], mask)),
        rp.stability(profiles),
    ]
    drawn = {"importance": figures.plot_importance(profiles[0])}
    drawn |= {each.name: each.plot() for each in found}
    (folder / "diagnostics.json").write_text("{}")
    return write_diagnosis(folder, profiles[0], found, drawn)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def test_the_checks_can_fail(browser):
    page = browser.new_page()
    page.set_content(
        "<html lang=en><title>t</title><h1>t</h1><main><p style='color:#bbb;background:#fff'>faint"
        "</p><img src='data:,'><ul><li>a</li><li>b</li></ul><a href='#x'>x</a></main></html>"
    )
    found = "\n".join(hindrances(page))
    assert "alternative text" in found
    assert "contrast" in found
    page.close()


def test_axe_finds_nothing_serious(browser, report):
    check(browser, report)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_figures_fit_a_phone_follow_the_scheme_and_grow(browser, report, scheme):
    page = browser.new_page(
        viewport={"width": 390, "height": 800}, color_scheme=scheme, has_touch=True
    )
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("request", lambda asked: trouble.append(asked.url))
    page.goto(f"file://{report}")
    own = [each for each in trouble if not each.startswith(("data:", f"file://{report}"))]
    assert own == []
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    images = page.locator("figure img")
    widths = [each.bounding_box()["width"] for each in images.all()]
    assert len(widths) == 5
    assert max(widths) <= 390
    first = page.locator(".picture summary").first
    shot = Image.open(io.BytesIO(images.nth(1).screenshot())).convert("RGB")
    corner = sum(shot.getpixel((2, 2)))
    assert (corner < 150) is (scheme == "dark"), "the drawing's ground is the page's"
    first.tap()
    assert images.first.bounding_box()["width"] >= 800
    assert page.evaluate("document.documentElement.scrollWidth") == 390, "it scrolls in its own box"
    first.focus()
    page.keyboard.press("Enter")
    assert images.first.bounding_box()["width"] == widths[0]
    page.close()


def test_links_lead_to_files_that_are_there(browser, report):
    page = browser.new_page()
    page.goto(f"file://{report}")
    links = page.evaluate(
        "[...document.querySelectorAll('a')].map(each => each.getAttribute('href'))"
    )
    outside = [each for each in links if not each.startswith("#")]
    assert {Path(each).suffix for each in outside} == {".json", ".png", ".pdf"}
    assert all((report.parent / each).is_file() for each in outside)
    page.close()


@pytest.mark.skipif(not SITE.is_dir(), reason="the documentation site is not built")
def test_the_documentation_site_has_nothing_serious(browser):
    """Its front page in both schemes; in the light, the longest page of each folder."""
    check(browser, SITE / "index.html")
    folders = {each.parent for each in SITE.rglob("*.html") if "_static" not in each.parts}
    assert {each.name for each in folders} >= {"api", "findings", "how-to", "notebooks"}
    page, found = browser.new_page(), {}
    for folder in sorted(folders):
        file = max(folder.glob("*.html"), key=lambda each: each.stat().st_size)
        page.goto(f"file://{file}")
        found[str(file.relative_to(SITE))] = hindrances(page)
    page.close()
    assert not any(found.values()), {name: each for name, each in found.items() if each}
