"""Metrics by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from recast_probe import metrics
from recast_probe.errors import InputError
from recast_probe.metrics import IdentityScorer
from recast_probe.metrics.registry import ENTRIES


@pytest.fixture(scope="module")
def pictures(subject, composite):
    return composite(subject(1, 60), seed=1), composite(subject(1, 60), seed=2)


def test_the_bundled_metrics_are_the_scorers_numbers(pictures):
    (image, mask), (reference, reference_mask) = pictures
    for masked, suffix in ((True, ""), (False, "-whole")):
        wanted = IdentityScorer(masked).score(image, mask, reference, reference_mask)
        for name, value in wanted.items():
            found = metrics.metric(name + suffix)
            assert found.score(image, mask, reference, reference_mask) == value


def test_names_with_and_without_masks():
    names = metrics.metric_names()
    assert {"dinov2", "dinov2-whole", "auraface-whole", "clip-t", "kid"} <= set(names)
    assert not {"clip-t-whole", "kid-whole", "rfid-whole"} & set(names)
    for name in ("mobilenet", "colour", "ssim", "kid", "rfid", "ssim-whole"):
        made = metrics.metric(name)
        assert made.name == name
        assert json.loads(json.dumps(made.provenance()))["metric"] == name
        assert metrics.missing(name) is None
    assert [metrics.metric(name).higher_is_better for name in ("mobilenet", "ssim", "kid")] == [
        True,
        True,
        False,
    ]


def test_lists_of_names(tmp_path):
    found = metrics.metrics_of(" mobilenet, colour-whole,")
    assert [each.name for each in found] == ["mobilenet", "colour-whole"]
    assert metrics.metrics_of(found) == found
    assert metrics.metrics_of("") == []
    with pytest.raises(InputError, match="'colour' is asked for twice"):
        metrics.metrics_of("colour,colour")
    with pytest.raises(InputError, match=f"{tmp_path.name}"):
        metrics.metrics_of(f"dinov2={tmp_path}")
    with pytest.raises(InputError, match="colour has no weights to fetch"):
        metrics.metrics_of(f"colour={tmp_path}")


@pytest.mark.parametrize("name", ["dino", "", "clip-t-whole", "kid-whole", "-whole"])
def test_unknown_names_are_refused(name):
    with pytest.raises(InputError, match="choose from mobilenet, colour, dinov2"):
        metrics.metric(name)


def test_what_is_missing_is_said_without_loading(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("recast_probe.metrics.registry.is_installed", lambda package: False)
    found = {name: metrics.missing(name) for name in ENTRIES}
    assert [name for name, lack in found.items() if lack is None] == [
        *("mobilenet", "colour"),
        *(name for name in ("dinov2", "clip-i", "clip-t") if found[name] is None),
    ]
    for name, package in (("auraface", "onnxruntime"), ("ssim", "skimage"), ("lpips", "lpips")):
        assert f"the package {package}: pip install" in str(found[name])


def test_masks_that_fit_no_image_are_refused(pictures):
    (image, _), (reference, _) = pictures
    with pytest.raises(InputError, match=r"shape \(3, 5\)"):
        metrics.metric("mobilenet").score(image, np.ones((3, 5)), reference, None)
    with pytest.raises(InputError, match="Expected a PIL image"):
        metrics.metric("colour").score(np.zeros((3, 3)), None, Image.new("RGB", (3, 3)), None)
