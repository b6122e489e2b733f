"""What notebooks show of objects: escaped, small, and with the right picture."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

import recast_probe as rp
from recast_probe import pocket
from recast_probe._utils.notebook_picture import html_map, html_picture
from recast_probe.testing.planted_profiles import planted

HOSTILE = '"><script>alert(1)</script>'
SMALL = 250_000  # characters


def pictures(text: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(each))).convert("RGB")) for each in found
    ]


@pytest.fixture(scope="module")
def run():
    probe = rp.Probe.tiny("flux2-klein")
    images = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    return probe, probe.generate(images, HOSTILE, steps=2, profile=True, progress=False), images


def test_a_run_stands_beside_its_references(run):
    _, result, images = run
    shown = pictures(result._repr_html_())
    assert len(shown) == 3
    for picture, given in zip(shown, images, strict=False):
        assert tuple(picture[0, 0]) == given.getpixel((0, 0))
    np.testing.assert_array_equal(shown[2], np.asarray(result.image.convert("RGB")))


def test_every_object_is_escaped_and_small(run):
    probe, result, images = run
    profile = result.profile
    ranking = rp.rank.cross_image(profile, blocks="all")
    maps = probe.attention_maps(images, HOSTILE, steps=2, progress=False)
    for each in (
        *(probe, result, profile, ranking, maps, rp.Prune(ranking, 4)),
        *(pocket.samples()[0], rp.skew(profile), rp.entropy(profile)),
    ):
        text = each._repr_html_()
        assert "<script" not in text
        assert len(text) < SMALL
        assert text.count("<div>") == text.count("</div>")
    assert len(pictures(profile._repr_html_())) == len(pictures(maps._repr_html_())) == 2
    assert HOSTILE not in html_picture(images[0], HOSTILE)


def test_a_map_is_brightest_at_its_highest_value():
    values = np.zeros((3, 4))
    values[1, 2], values[0, 0] = 5, np.nan
    (shown,) = pictures(html_map(values, "x", side=40))
    assert shown.shape == (30, 40, 3)
    light = shown.astype(int).sum(axis=-1)
    assert np.unique(light[10:20, 20:30]).tolist() == [light.max()]
    assert len(set(shown[5, 5])) == 1, "what has no value is grey"
    (profile,) = pictures(planted(np.arange(16.0))._repr_html_())
    light = profile.astype(int).sum(axis=-1)
    assert light[-1, -1] == light.max() > light[0, 0]


def test_the_table_of_a_result_has_labels_and_its_figure():
    found = rp.skew(planted(np.arange(16.0)))
    text = found._repr_html_()
    assert len(pictures(text)) == 1
    for number in found.numbers():
        assert number.label in text
