"""The page in a browser: what is under the cursor is what was stored, and nothing is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import recast_probe as rp
from recast_probe.interventions import Keep
from tests.browser import SCHEMES, chromium, hindrances

SELECTION = {"step": 1, "block": 2, "head": 1}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def page_file(tmp_path_factory, result, maps, image):
    inside = np.zeros((4, 4), bool)
    inside[1:3, 1:3] = True
    explorer = rp.explore(result, maps, image=image, outlines={"middle": inside})
    return explorer.save(tmp_path_factory.mktemp("pages") / "page.html")


@pytest.fixture(scope="module")
def two_file(tmp_path_factory, probe, result, maps, image):
    keep = Keep((0, 5, 6, 9))
    settings = {"steps": 3, "interventions": [keep], "progress": False}
    pruned = probe.generate(image, "a fox", profile=True, **settings)
    its = probe.attention_maps(image, "a fox", **settings)
    second = rp.explore(pruned, its, image=image, title="pruned")
    explorer = rp.explore(result, maps, image=image, title="full", compare=second)
    return explorer.save(tmp_path_factory.mktemp("pages") / "two.html")


@pytest.fixture
def opened(browser) -> Iterator[Any]:
    """Opens a page; at the end nothing was fetched and the console is empty."""
    pages, trouble = [], []

    def opening(file, link: str = "", **options: Any) -> Any:
        page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
        page.on("console", lambda message: trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        address = f"file://{file}{link}"
        own = address.partition("#")[0]
        page.on(
            "request",
            lambda asked: (
                None if asked.url.startswith(("data:", own, "blob:")) else trouble.append(asked.url)
            ),
        )
        page.goto(address)
        page.wait_for_selector("[data-ready=yes]", timeout=60_000)
        pages.append(page)
        return page

    yield opening
    for page in pages:
        page.close()
    assert trouble == []


def frames(page: Any) -> None:
    page.evaluate(
        "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )


def choose(page: Any, **selection: Any) -> None:
    page.evaluate(
        "selection => document.getElementById('recast-explorer').explorer.choose(selection)",
        selection,
    )
    frames(page)


def shown(page: Any, name: str, run: int = 0) -> np.ndarray:
    """Values as they are drawn; NaN where nothing was."""
    values = page.evaluate(
        """([name, run]) => {
            const view = document.getElementById('recast-explorer').explorer;
            const found = view.values(view.runs[run])[name];
            return found && [...found].map(each => Number.isNaN(each) ? null : each);
        }""",
        [name, run],
    )
    return np.array([np.nan if each is None else each for each in values])


def state(page: Any, name: str) -> Any:
    return page.evaluate(
        """name => {
            const { state } = document.getElementById('recast-explorer').explorer;
            const found = state[name];
            return found?.tokens ? { ...found, tokens: [...found.tokens] } : found;
        }""",
        name,
    )


def over(page: Any, kind: str, row: int, column: int, run: int = 0) -> tuple[float, float]:
    """The middle of a token of a 4 x 4 grid, on the screen."""
    canvas = page.locator(f".run:nth-of-type({run + 1}) figure.{kind} canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    return box["x"] + (column + 0.5) * box["width"] / 4, box["y"] + (row + 0.5) * box["height"] / 4


def test_hovering_shows_the_stored_values(opened, page_file, result, maps):
    page = opened(page_file)
    choose(page, **SELECTION)
    page.mouse.move(*over(page, "generation", 1, 2))
    frames(page)
    expected = maps.data.sel(**SELECTION, query=6)
    error = 0.01 * float(expected.max())
    np.testing.assert_allclose(shown(page, "reference"), expected, atol=error)
    np.testing.assert_allclose(
        shown(page, "shares"), maps.shares.sel(**SELECTION, query=6), rtol=1e-6
    )
    np.testing.assert_allclose(shown(page, "text"), maps.text.sel(**SELECTION, query=6), atol=error)
    words = page.inner_text(".sentence")
    best = int(expected.values.argmax())
    assert words.startswith("Step 1 (timestep")
    assert "block 2 (single), head 1" in words
    assert "row 1, column 2" in words
    assert f"row {best // 4}, column {best % 4}" in words
    share = 100 * float(maps.shares.sel(**SELECTION, query=6, key_group="reference"))
    assert f"{share:.3g}"[:4] in words
    page.mouse.move(*over(page, "reference", 3, 0))
    frames(page)
    column = maps.data.sel(**SELECTION, token=12)
    np.testing.assert_allclose(shown(page, "generation"), column, atol=error)
    score = result.profile.score.sel(SELECTION)
    np.testing.assert_allclose(shown(page, "reference"), score, atol=error)
    assert "reference token at row 3, column 0" in page.inner_text(".sentence")
    page.mouse.move(2, 2)
    frames(page)
    np.testing.assert_allclose(
        shown(page, "generation"), maps.shares.sel(**SELECTION, key_group="reference"), rtol=1e-6
    )


def test_means_are_those_of_the_arrays(opened, page_file, maps):
    page = opened(page_file)
    assert [state(page, name) for name in ("step", "block", "head")] == ["mean"] * 3
    whole = maps.mean()
    for _ in range(2):  # read one by one, and from the mean maps that were made meanwhile
        page.mouse.move(*over(page, "generation", 0, 3))
        frames(page)
        row = shown(page, "reference")
        np.testing.assert_allclose(row, whole.sel(query=3), atol=0.01 * float(whole.max()))
        page.mouse.move(*over(page, "reference", 2, 1))
        frames(page)
        column = shown(page, "generation")
        np.testing.assert_allclose(column, whole.sel(token=9), atol=0.01 * float(whole.max()))
        page.wait_for_function(
            "() => document.getElementById('recast-explorer').explorer.runs[0].mean?.values"
        )


def test_sliders_clicks_and_keys_choose_the_same(opened, page_file):
    page = opened(page_file)
    page.locator("input[type=range]").nth(0).fill("2")
    frames(page)
    assert state(page, "step") == 2
    assert not page.locator(".mean input").nth(0).is_checked()
    assert page.locator("output").nth(0).inner_text().startswith("2, t = ")
    page.locator("canvas.grid").first.focus()
    for key, name, value in (
        (",", "step", 1), (".", "step", 2), ("]", "block", 0), ("]", "block", 1),
        ("=", "head", 0), ("=", "head", 1), ("-", "head", 0), ("s", "step", "mean"),
    ):  # fmt: skip
        page.keyboard.press(key)
        frames(page)
        assert state(page, name) == value
    box = page.locator("canvas.blocks").bounding_box()
    # the third of 5 blocks, the last of 3 steps
    page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + 0.5 * box["height"])
    frames(page)
    assert (state(page, "step"), state(page, "block")) == (2, 2)
    box = page.locator("svg.curve").bounding_box()
    page.mouse.click(box["x"] + 0.13 * box["width"], box["y"] + 30)
    frames(page)
    assert (state(page, "step"), state(page, "block")) == (0, 2)


def test_the_keyboard_reaches_tokens(opened, page_file):
    page = opened(page_file)
    canvas = page.locator("figure.reference canvas")
    canvas.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    frames(page)
    assert state(page, "pin") == {"kind": "reference", "token": 5}
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    frames(page)
    assert sorted(state(page, "brush")["tokens"]) == [5, 6, 9, 10]
    page.wait_for_timeout(600)
    assert page.inner_text("[role=status]") == page.inner_text(".sentence")
    page.keyboard.press("Escape")
    frames(page)
    assert state(page, "pin") is state(page, "brush") is None
    label = canvas.get_attribute("aria-label")
    assert label.startswith("Reference, 4 by 4 tokens")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, select, input, canvas, svg')].filter(each =>
            !(each.getAttribute('aria-label') || each.labels?.length || each.textContent.trim()))
            .map(each => each.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []


def test_a_brush_is_a_rectangle_and_its_sums(opened, page_file, result, maps):
    page = opened(page_file)
    choose(page, **SELECTION)
    page.mouse.move(*over(page, "reference", 0, 1))
    page.mouse.down()
    page.mouse.move(*over(page, "reference", 1, 2), steps=4)
    page.mouse.up()
    page.mouse.move(2, 2)
    frames(page)
    tokens = [1, 2, 5, 6]
    assert sorted(state(page, "brush")["tokens"]) == tokens
    given = maps.data.sel(**SELECTION, token=tokens).sum("token")
    np.testing.assert_allclose(shown(page, "generation"), given, atol=0.01 * float(given.max()))
    share = 100 * float(result.profile.score.sel(**SELECTION, token=tokens).sum())
    words = page.inner_text(".sentence")
    assert "4 brushed tokens of the reference" in words
    assert f"{share:.2g}"[:3] in words


def test_a_link_holds_the_view(opened, page_file):
    page = opened(page_file)
    choose(page, **SELECTION)
    page.mouse.click(*over(page, "generation", 1, 2))
    page.locator("select").select_option("cividis")
    frames(page)
    link = page.evaluate("location.hash")
    other = opened(page_file, link)
    assert [state(other, name) for name in SELECTION] == list(SELECTION.values())
    assert state(other, "pin") == {"kind": "generation", "token": 6}
    assert state(other, "palette") == other.locator("select").input_value() == "cividis"
    np.testing.assert_array_equal(shown(page, "reference"), shown(other, "reference"))
    hostile = "#step=99&block=<img>&token=generation.999&brush=reference.0-9999999&colours=x"
    odd = opened(page_file, hostile)
    assert [state(odd, name) for name in ("step", "block", "pin")] == ["mean", "mean", None]
    assert sorted(state(odd, "brush")["tokens"]) == list(range(16))


def test_two_runs_share_the_cursor(opened, two_file):
    page = opened(two_file)
    choose(page, **SELECTION)
    page.mouse.move(*over(page, "generation", 1, 2, run=1))
    frames(page)
    first, second = shown(page, "reference"), shown(page, "reference", 1)
    assert not np.isnan(first).any()
    assert np.flatnonzero(~np.isnan(second)).tolist() == [0, 5, 6, 9]
    words = page.inner_text(".sentence")
    assert "full: The generation token at row 1, column 2" in words
    assert "pruned: The generation token at row 1, column 2" in words
    tops = [each.bounding_box()["y"] for each in page.locator("section.run").all()]
    assert len(tops) == 2


def test_runs_share_a_scale_only_for_the_same_thing(opened, two_file, tmp_path, result, maps):
    page = opened(two_file)
    scale = page.locator("figure.reference .scale")
    page.mouse.move(*over(page, "generation", 1, 2))
    frames(page)
    assert scale.nth(0).inner_text() == scale.nth(1).inner_text()
    without = rp.explore(result, maps, compare=result.profile).save(tmp_path / "a.html")
    page = opened(without)
    scale = page.locator("figure.reference .scale")
    page.mouse.move(2, 2)
    frames(page)
    assert scale.nth(0).inner_text() == scale.nth(1).inner_text()
    page.mouse.move(*over(page, "generation", 1, 2))
    frames(page)
    assert scale.nth(0).inner_text() != scale.nth(1).inner_text()
    assert "No maps of single tokens" in page.inner_text(".sentence")


@pytest.mark.parametrize("width", [360, 800, 1280])
@pytest.mark.parametrize("runs", [1, 2])
def test_nothing_moves_under_the_pointer(opened, page_file, two_file, width, runs):
    page = opened((page_file, two_file)[runs - 1], viewport={"width": width, "height": 900})

    def places() -> list[float]:
        return page.evaluate(
            """() => [...document.querySelectorAll('canvas')].map(
                each => each.getBoundingClientRect().top + scrollY)"""
        )

    choose(page, **SELECTION)
    before = places()
    for kind in ("generation", "reference"):
        page.mouse.move(*over(page, kind, 3, 3))
        frames(page)
        assert places() == before
        page.evaluate(
            """kind => document.getElementById('recast-explorer').explorer.set(
                { hover: null, brush: { kind, tokens: new Set([1, 2, 15]) } })""",
            kind,
        )
        frames(page)
        assert places() == before


def test_a_phone_has_no_sideways_scroll_and_taps_pin(opened, page_file):
    page = opened(page_file, viewport={"width": 360, "height": 740}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.touchscreen.tap(*over(page, "generation", 2, 3))
    frames(page)
    assert state(page, "pin") == {"kind": "generation", "token": 11}
    assert state(page, "hover") is None
    page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
    assert page.locator(".sentence").bounding_box()["y"] >= 0
    page.get_by_role("button", name="Brush by finger").click()
    touch = page.evaluate("getComputedStyle(document.querySelector('canvas.grid')).touchAction")
    assert touch == "none"


@pytest.mark.parametrize(("scheme", "dark"), [("dark", True), ("light", False)])
def test_text_can_be_read_in_both_schemes(opened, page_file, scheme, dark):
    page = opened(page_file, color_scheme=scheme)

    def light(of: str, name: str) -> float:
        colour = page.evaluate(
            "([of, name]) => getComputedStyle(document.querySelector(of))[name]", [of, name]
        )
        values = [int(each) / 255 for each in colour.split("(")[1].rstrip(")").split(",")[:3]]
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    paper = light(".recast-explorer", "backgroundColor")
    assert (paper < 0.1) is dark
    for of in (".sentence", ".note", "output", ".prompt", "button"):
        high, low = sorted((paper, light(of, "color")), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing_serious(opened, two_file, scheme, width):
    view = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    page = opened(two_file, **view)
    assert hindrances(page) == []
    page.mouse.click(*over(page, "generation", 1, 2))
    frames(page)
    assert hindrances(page) == [], "with a token pinned"


def test_a_picture_of_the_view_is_saved(opened, page_file, tmp_path):
    from PIL import Image

    page = opened(page_file)
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").click()
    download.value.save_as(tmp_path / "view.png")
    with Image.open(tmp_path / "view.png") as picture:
        assert picture.width == 2 * 24 + 2 * 420 + 24
        assert len(picture.convert("RGB").getcolors(10**6)) > 50


def test_the_widget_draws_itself_and_asks_for_runs(opened, browser, page_file, tmp_path, result,
                                                   maps, image, probe):  # fmt: skip
    """The module's default export, with a model as Jupyter has one."""
    import base64
    import json

    from recast_probe.explorer.page import SCRIPT

    pytest.importorskip("anywidget")
    widget = rp.explore(result, maps, image=image, probe=probe, swaps={"b": image}).widget()
    values = {
        "page": widget.page, "state": {}, "brushed": [],
        "arrays": base64.b64encode(widget.arrays).decode(),
    }  # fmt: skip
    script = SCRIPT.read_text("utf-8").replace("export default { render };", "")
    holder = tmp_path / "widget.html"
    holder.write_text(
        f"""<!doctype html><link rel="icon" href="data:,"><div id="recast-explorer"></div>
        <script type="module">{script}
        const values = {json.dumps(values)};
        values.arrays = new DataView(bytesOfBase64(values.arrays).buffer);
        window.sent = []; window.handlers = [];
        const model = {{ get: name => values[name], set: (name, v) => (values[name] = v),
          save_changes: () => {{}}, send: message => sent.push(message),
          on: (_, handler) => handlers.push(handler) }};
        window.values = values;
        const el = document.getElementById("recast-explorer");
        await render({{ model, el }});
        el.explorer = el.firstChild.explorer; el.dataset.ready = "yes";</script>""",
        "utf-8",
    )
    page = opened(holder)
    page.get_by_role("button", name="Prune to the brushed tokens").click()
    assert "Brush tokens" in page.inner_text(".live .status")
    page.mouse.move(*over(page, "reference", 0, 0))
    page.mouse.down()
    page.mouse.move(*over(page, "reference", 0, 2), steps=3)
    page.mouse.up()
    frames(page)
    assert page.evaluate("values.brushed") == [0, 1, 2]
    page.get_by_role("button", name="Prune to the brushed tokens").click()
    choose(page, block=3, head=0)
    page.evaluate("handlers[0]({ kind: 'refused', words: 'No.' })")
    page.get_by_role("button", name="Cut this head").click()
    page.evaluate("handlers[0]({ kind: 'refused', words: 'No.' })")
    page.get_by_role("button", name="Swap the reference").click()
    assert page.evaluate("sent") == [
        {"action": "prune", "tokens": [0, 1, 2]},
        {"action": "cut", "block": 3, "head": 0},
        {"action": "swap", "name": "b"},
    ]
    made = widget.page["runs"][0]["references"][0]
    page.evaluate("url => handlers[0]({ kind: 'made', words: 'Done', image: url })", made)
    assert page.locator(".made img").count() == 2
    assert "step=mean&block=3" in page.evaluate("values.state.link")
