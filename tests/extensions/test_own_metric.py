"""A metric of your own, by its name in tables and on the command line."""

from __future__ import annotations

import numpy as np
import pytest

from recast_probe import metrics
from recast_probe.errors import InputError
from recast_probe.metrics import ImageMetric, register_metric, registry
from recast_probe.testing import tiny


class Brightness(ImageMetric):
    """How little the mean grey level of the subject changes, 0 to 1."""

    name = "brightness"

    def score(self, image, mask, reference, reference_mask):
        one, other = (
            np.asarray(picture.convert("L"))[... if inside is None else inside].mean()
            for picture, inside in ((image, mask), (reference, reference_mask))
        )
        return 1 - abs(float(one) - float(other)) / 255

    def provenance(self):
        return {"metric": self.name}


@pytest.fixture(autouse=True)
def entries(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(registry, "ENTRIES", dict(registry.ENTRIES))


def test_it_is_made_by_its_name_with_masks_and_without():
    assert register_metric(Brightness) is Brightness
    assert {"brightness", "brightness-whole"} <= set(metrics.metric_names())
    dark, light = (tiny.tiny_image().point(lambda grey, f=f: grey * f) for f in (0.2, 0.6))
    mask = np.zeros((64, 64), bool)
    mask[:8, :8] = True
    masked = metrics.metric("brightness").score(light, mask, dark, mask)
    whole = metrics.metric("brightness-whole").score(light, mask, dark, mask)
    grey = [np.asarray(picture.convert("L"), float) for picture in (light, dark)]
    assert masked == pytest.approx(1 - abs(grey[0][mask].mean() - grey[1][mask].mean()) / 255)
    assert whole == pytest.approx(1 - abs(grey[0].mean() - grey[1].mean()) / 255)
    assert metrics.missing("brightness") is None


def test_it_is_a_column_of_commands(tmp_path, capsys):
    from recast_probe.cli import main

    register_metric(Brightness)
    for name, seed in (("made", 0), ("reference", 1)):
        tiny.tiny_image(seed=seed).save(tmp_path / f"{name}.png")
    arguments = ["score", "--image", tmp_path / "made.png", "--metrics", "brightness", "--json"]
    main([str(each) for each in (*arguments, "--reference", tmp_path / "reference.png")])
    assert "brightness" in capsys.readouterr().out


def test_a_package_that_it_needs_is_named():
    register_metric(Brightness, packages=["no_such_module"])
    assert "no_such_module" in metrics.missing("brightness")


def named(name):
    return type("Named", (Brightness,), {"name": name})


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (named("ssim"), "'ssim' already"),
        (named("light-whole"), "'light-whole'"),
        (named("a,b"), "no comma"),
        (named(""), "Named lacks name"),
        (type("Half", (ImageMetric,), {"name": "half"}), "Half lacks provenance, score"),
        (Brightness(), "not Brightness()"),
        (dict, "inherits from ImageMetric"),
    ],
)
def test_what_cannot_be_registered(kind, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(").replace(")", r"\)")):
        register_metric(kind)
