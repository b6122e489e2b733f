"""A figure for a page: its words apart, the same picture in it, colours that follow the scheme."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from recast_probe import diagnostics, figures
from recast_probe.figures.page_svg import SCHEME, page_figure

SPACE = "{http://www.w3.org/2000/svg}"


def pictures(svg: bytes) -> list[np.ndarray]:
    found = re.findall(rb'href="data:image/webp;base64,([^"]+)"', svg)
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(each))).convert("RGB")) for each in found
    ]


def test_words_stand_apart_and_the_drawing_is_well_formed(profile):
    result = diagnostics.entropy(profile)
    figure = figures.plot_entropy(result)
    found = page_figure(figure)
    assert found.title == "How widely attention spreads over the reference"
    assert found.selection == profile.selection_text()
    root = ET.fromstring(found.svg)
    width, height = (float(each) for each in root.attrib["viewBox"].split()[2:])
    assert width == pytest.approx(72 * (figure.inside[2] + 0.12))
    assert height == pytest.approx(72 * (figure.inside[3] + 0.12))
    # the texts that stay come in comments of the drawing
    assert b"<!-- Entropy (bits) -->" in found.svg
    assert b"How widely" not in found.svg
    assert all(text.get_visible() for text in figure.texts), "the figure itself is as it was"
    assert page_figure(figures.plot_entropy(result)).svg == found.svg


def test_colours_of_the_frame_follow_the_scheme_and_others_stay(profile, mask):
    svg = page_figure(figures.plot_overlap(diagnostics.overlap(profile, mask))).svg.decode()
    drawn = svg.partition("</style>")[2]
    for name, light, dark in SCHEME[:-1]:
        assert f"--{name}:{light}" in svg
        assert f"--{name}:{dark}" in svg
        assert light not in drawn
    assert "var(--page)" in drawn
    assert figures.style.BLUE in drawn
    assert figures.style.MARK in drawn, "the outline on the map is white on a dark page, too"


def test_pictures_keep_their_pixels(picture):
    rows = [{"reference": picture, "full": picture.rotate(180)}]
    first, second = pictures(page_figure(figures.plot_images(rows, ["x"], selection="s")).svg)
    for shown, given in ((first, picture), (second, picture.rotate(180))):
        given = np.asarray(given, float)
        assert shown.shape == given.shape
        assert np.abs(shown - given).mean() < 4
    tiny = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8))
    (small,) = pictures(page_figure(figures.plot_images([{"a": tiny}], ["x"], selection="s")).svg)
    np.testing.assert_array_equal(small, np.asarray(tiny))


def test_text_with_markup_stays_text():
    hostile = "</svg><script>alert(1)</script>&"
    figure = figures.plot_budgets({hostile: [4, 2]}, 4, selection=hostile)
    root = ET.fromstring(page_figure(figure).svg)
    assert not list(root.iter(f"{SPACE}script"))


def test_a_figure_without_words_is_shown_whole():
    found = page_figure(Figure((2, 1)))
    assert (found.title, found.note, found.selection) == ("", "", "")
    assert b'viewBox="0 0 144 72"' in found.svg
