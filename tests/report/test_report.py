from __future__ import annotations

import io
import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from recast_probe import diagnostics
from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.report import Number, Picture, Section, Verdict, write_report
from recast_probe.report.links import relative
from recast_probe.report.numbers import explained, formatted
from recast_probe.report.page import render

ATTACK = "</pre></style>\"'><script>alert('x')</script><img src=x onerror=alert(1)>"


class Reader(HTMLParser):
    """Collects what a browser would see: tags with their attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.inside: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "style":
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if tag == "style":
            self.inside.pop()

    def handle_data(self, data):
        if not self.inside:
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def png(width: int = 12, height: int = 8, **options) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(buffer, "PNG", **options)
    return buffer.getvalue()


def everywhere(text: str, figures=()) -> str:
    section = Section(
        title=text,
        text=text,
        figures=[Picture(figure, text, text, text, {text: "a b.png"}) for figure in figures],
        table=[{text: text, "tokens": 3}],
    )
    return render(
        text,
        text,
        {text: Number(text, 1.0, text, text, text)},
        [section] * 3,
        {text: [text, {text: 1}]},
        Verdict(text, text),
        {text: text},
        {text: "runs/a:b.json"},
    )


def test_hostile_text_stays_text(tmp_path):
    picture = tmp_path / "<script>alert(1)<.png"
    picture.write_bytes(png())
    reader = Reader(everywhere(ATTACK, [picture]))
    assert reader.count("script") == 0
    assert reader.count("pre") == reader.count("style") == 1
    assert reader.count("img") == 3
    for _, attributes in reader.tags:
        assert not any(name.startswith("on") for name in attributes)
    assert reader.text.count("alert('x')") >= 10


@given(st.text(max_size=30))
@settings(max_examples=40)
def test_any_text_is_shown_unchanged(text):
    reader = Reader(render("t", "", {}, [Section(title="s", text="x" + text + "y")], {}))
    shown = reader.text.replace("\r", "").replace("\n", "")
    expected = ("x" + text + "y").replace("\r", "").replace("\n", "")
    if "\x00" not in text and not re.search(r"\s", expected):
        assert expected in shown
    assert reader.count("p") == 1 or "\n\n" in text


def test_nothing_outside_the_file_is_asked_for():
    page = everywhere("plain", [png()])
    reader = Reader(page)
    for tag, attributes in reader.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form"}
        for name in ("src", "href", "srcset", "action"):
            value = attributes.get(name) or ""
            assert (
                value == ""
                or value.startswith(("data:image/", "#section-", "#words"))
                or value in ("a%20b.png", "runs/a%3Ab.json")
            ), (tag, value)
    assert "@import" not in page
    assert set(re.findall(r"url\(\"([a-z]+:[a-z/]+);", page)) == {"data:font/ttf"}
    policy = [a["content"] for t, a in reader.tags if a.get("http-equiv")]
    assert policy == [
        "default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'"
    ]


def test_document_parts(tmp_path):
    path = write_report(
        tmp_path / "deep" / "report.html",
        title="Fox",
        subtitle="12 steps",
        summary={"steps_run": 12},
        sections=[Section("One", "First.\n\nSecond."), Section("Two"), Section("Three")],
        provenance={"seed": 0, "place": Path("/somewhere")},
    )
    page = path.read_text(encoding="utf-8")
    reader = Reader(page)
    assert page.startswith("<!DOCTYPE html>")
    assert reader.tags[0] == ("html", {"lang": "en"})
    assert [reader.count(tag) for tag in ("h1", "h2", "details", "nav")] == [1, 3, 1, 1]
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    targets = {attributes.get("id") for tag, attributes in reader.tags if tag == "section"}
    links = {(attributes["href"] or "")[1:] for tag, attributes in reader.tags if tag == "a"}
    assert links == targets == {"section-1", "section-2", "section-3"}
    assert "Steps run" in reader.text
    provenance = reader.text[reader.text.index("{") : reader.text.rindex("}") + 1]
    assert json.loads(provenance) == {"seed": 0, "place": "/somewhere"}
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_the_same_input_gives_the_same_bytes(tmp_path):
    written = [
        write_report(
            tmp_path / name, title="t", summary={"a": 1.5}, sections=[], provenance={"b": 2}
        ).read_bytes()
        for name in ("one.html", "two.html")
    ]
    assert written[0] == written[1]


def test_images_are_embedded_and_dense_ones_shown_at_their_size():
    reader = Reader(
        render(
            "t",
            "",
            {},
            [
                Section(
                    "s",
                    figures=[
                        Picture(png(400, 200, dpi=(200, 200)), "A finding."),
                        Picture(png(40, 20), "Another."),
                    ],
                )
            ],
            {},
        )
    )
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert [(image["width"], image["height"]) for image in images] == [("208", "104"), ("40", "20")]
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert [image["alt"] for image in images] == ["A finding.", "Another."]


def test_unusable_figures_are_named(tmp_path):
    vector = tmp_path / "figure.pdf"
    vector.write_bytes(b"%PDF-1.4")
    target = tmp_path / "report.html"
    common = {"title": "t", "summary": {}, "provenance": {}}
    with pytest.raises(InputError, match=r"figure\.pdf is not a PNG"):
        write_report(target, sections=[Section("s", figures=[Picture(vector, "x")])], **common)
    with pytest.raises(InputError, match=r"there is no file .*missing\.png"):
        write_report(
            target,
            sections=[Section("s", figures=[Picture(tmp_path / "missing.png", "x")])],
            **common,
        )
    assert not target.exists()


def test_a_failed_write_keeps_the_old_report(tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    common = {"summary": {}, "sections": [], "provenance": {}}
    write_report(target, title="old", **common)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(target, title="new", **common)
    assert "old" in target.read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_names_that_are_no_unicode_can_be_written(tmp_path):
    name = b"fox-\xff.png".decode("utf-8", "surrogateescape")
    path = write_report(tmp_path / "r.html", title=name, summary={}, sections=[], provenance={})
    assert "fox-?.png" in path.read_text(encoding="utf-8")


def test_tables_align_numbers_and_keep_gaps():
    rows = [{"arm": "full", "identity": 0.91}, {"arm": "none", "identity": None, "note": "x"}]
    reader = Reader(render("t", "", {}, [Section("s", table=rows)], {}))
    heads = [attributes.get("class") for tag, attributes in reader.tags if tag == "th"]
    assert heads == [None, "numeric", None, None, None]
    assert reader.count("td") == 4
    scopes = [attributes.get("scope") for tag, attributes in reader.tags if tag == "th"]
    assert scopes == ["col"] * 3 + ["row"] * 2
    assert "0.910" in reader.text
    assert "not available" in reader.text


def test_numbers_with_intervals_stand_to_the_right():
    rows = [{"arm": "a", "identity": "0.81 [0.79, 0.83, n=4]"}, {"arm": "b", "identity": "1"}]
    reader = Reader(render("t", "", {}, [Section("s", table=rows)], {}))
    cells = [attributes.get("class") for tag, attributes in reader.tags if tag == "td"]
    assert cells == ["numeric", "numeric"]
    mixed = [{"arm": "a", "identity": "0.81"}, {"arm": "b", "identity": "of two runs"}]
    reader = Reader(render("t", "", {}, [Section("s", table=mixed)], {}))
    assert not any(attributes.get("class") == "numeric" for _, attributes in reader.tags)


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/a.json", "runs/../../a", ""])
def test_links_lead_below_the_report_only(path):
    with pytest.raises(InputError, match="its own folder"):
        relative(path)
    assert relative("javascript:alert(1)") == "javascript%3Aalert%281%29"


def test_an_svg_is_an_image_of_its_own_size():
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 144 72"><script>x</script></svg>'
    page = render("t", "", {}, [Section("s", figures=[Picture(svg, "A finding.")])], {})
    ((_, image),) = [each for each in Reader(page).tags if each[0] == "img"]
    assert (image["width"], image["height"]) == ("208", "104")
    assert image["src"].startswith("data:image/svg+xml,")
    assert "<script" not in page, "a browser runs nothing inside an image"
    for odd in (b"<svg>", b"<svg \xff\xfe", b'<html><svg viewBox="0 0 1 1">'):
        with pytest.raises(InputError, match="not a PNG"):
            render("t", "", {}, [Section("s", figures=[Picture(odd, "x")])], {})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5123, "0.512"),
        (12.345, "12.3"),
        (4096, "4,096"),
        (np.int64(12), "12"),
        (123456.7, "123,457"),
        (0.00012345, "0.000123"),
        (1.2e-9, "1.20e-09"),
        (-0.25, "-0.250"),
        (0.0, "0"),
        (True, "yes"),
        (None, "not available"),
        (math.nan, "not available"),
        (math.inf, "infinite"),
        ("a <b>", "a <b>"),
    ],
)
def test_numbers_for_people(value, text):
    assert formatted(value) == text


def test_a_number_without_a_label_has_its_name_and_own_words_win():
    plain = explained("mean_budget", 0.93)
    assert (plain.value, plain.label) == (0.93, "Mean budget")
    own = explained("auroc", Number("auroc", 0.93, "My label", "My words."))
    assert (own.explanation, own.label) == ("My words.", "My label")
    assert explained("Speed-up", Number(value=1.4)).label == "Speed-up"


CORNER = np.array([[True, False], [False, False]])


def test_every_diagnostic_number_is_explained():
    scores = np.random.default_rng(0).random((1, 2, 2, 1, 4))
    made = [
        AttentionProfile.build(
            score=scores + shift * np.arange(4),
            mass=np.full((1, 2, 2, 1, 3, 3), 1 / 3),
            conditional_entropy=np.ones((1, 2, 2, 1)),
            mass_weighted_conditional_entropy=np.ones((1, 2, 2, 1)),
            steps=[0, 1],
            timesteps=[1000, 500],
            sigmas=[1, 0.5],
            blocks=[0, 1],
            block_kinds=["double", "single"],
            heads=[0],
            layout=TokenLayout(text=1, generation=Grid(2, 2), references=(Grid(2, 2),)),
        )
        for shift in (0, 1, 2)
    ]
    found = (
        diagnostics.skew(made[0]),
        diagnostics.entropy(made[0]),
        diagnostics.overlap(made[0], CORNER, other_masks=[~CORNER]),
        diagnostics.stability(made),
    )
    for result in found:
        page = Reader(render("t", "", {n.name: n for n in result.numbers()}, [], {})).text
        for number in result.numbers():
            assert number.label in page
            assert number.explanation in page
        assert set(result.highlighted()) == set(result.highlights)
