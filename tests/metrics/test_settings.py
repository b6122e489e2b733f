"""Metrics of one name and one provenance are told apart by what they do."""

from __future__ import annotations

import json
import threading

import pytest
from PIL import Image

from recast_probe import metrics
from recast_probe.content.digest import NoContent
from recast_probe.errors import InputError
from recast_probe.metrics import ImageMetric, metric_settings
from recast_probe.metrics.faces.onnx_file import OnnxFile
from recast_probe.metrics.metric_types import Whole
from recast_probe.metrics.mobilenet import MobileNetV2
from tests import tiny_metrics
from tests.tiny_metrics import Words


def other_code(value):
    class Own(ImageMetric):
        name = "own"

        def score(self, image, mask, reference, reference_mask):
            return float(value)

        def provenance(self):
            return {"metric": self.name}

    return Own()


def around(value):
    return Whole(other_code(value))


def extracting(value):
    pytest.importorskip("torchmetrics")
    return metrics.metric("kid", extractor=lambda images: images.float().mean((2, 3)) * value)


@pytest.mark.parametrize("make", [Words, other_code, around, extracting])
def test_what_a_users_metric_does_is_told(make):
    one, again, other = make(1), make(1), make(2)
    assert one.provenance() == other.provenance()
    assert metric_settings(one) == metric_settings(again) != metric_settings(other)
    assert metric_settings(one).items() >= one.provenance().items()
    json.dumps(metric_settings(one))


@pytest.mark.parametrize("name", ["mobilenet", "colour", "colour-whole"])
def test_this_packages_own_are_told_by_provenance(name):
    made = metrics.metric(name)
    assert metric_settings(made) == made.provenance()


def test_an_extractor_of_this_package_with_other_weights_is_told():
    pytest.importorskip("torchmetrics")
    assert metric_settings(metrics.metric("kid")) == metrics.metric("kid").provenance()
    networks = [MobileNetV2().eval() for _ in range(2)]
    one, other = (metric_settings(metrics.metric("kid", extractor=each)) for each in networks)
    assert one != other


def test_a_metric_without_content_is_refused():
    with pytest.raises(NoContent, match="The metric words cannot be told from another one"):
        metric_settings(Words(threading.Lock()))


def merged(facts, changes):
    for name, value in changes.items():
        facts[name] = merged(facts[name], value) if isinstance(value, dict) else value
    return facts


def rewrite(path, changes):
    """Put other values into a JSON file."""
    path.write_text(json.dumps(merged(json.loads(path.read_text()), changes)))


PROCESSOR = "preprocessor_config.json"


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        (PROCESSOR, {"image_std": [0.05] * 3}),
        (PROCESSOR, {"image_mean": [0.1] * 3}),
        (PROCESSOR, {"resample": 0}),
        (PROCESSOR, {"rescale_factor": 0.1}),
        (PROCESSOR, {"do_normalize": False}),
        ("config.json", {"num_attention_heads": 1}),
        ("config.json", {"hidden_act": "relu"}),
    ],
    ids=str,
)
def test_every_file_of_dinov2_counts(tmp_path, file, changes):
    folders = [tiny_metrics.save_dinov2(tmp_path / each / "same") for each in ("one", "other")]
    rewrite(folders[1] / file, changes)
    one, other = (metrics.metric("dinov2", each) for each in folders)
    assert one.provenance()["weights"] == other.provenance()["weights"]
    assert one.provenance() != other.provenance()
    again = tiny_metrics.save_dinov2(tmp_path / "again" / "same")
    assert metrics.metric("dinov2", again).provenance() == one.provenance()
    json.dumps(one.provenance())


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        (PROCESSOR, {"image_std": [0.05] * 3}),
        (PROCESSOR, {"size": 300}),
        ("config.json", {"vision_config": {"hidden_act": "gelu"}}),
        ("tokenizer.json", {"model": {"vocab": {"x</w>": 38, "a</w>": 61}}}),
    ],
    ids=str,
)
def test_every_file_of_clip_counts(tmp_path, file, changes):
    folders = [tiny_metrics.save_clip(tmp_path / each / "same") for each in ("one", "other")]
    rewrite(folders[1] / file, changes)
    one, other = (metrics.metric("clip-t", each) for each in folders)
    before = one.provenance()
    assert before["weights"] == other.provenance()["weights"]
    assert before != other.provenance()
    # a prompt that was read makes no other metric
    one.score_text(Image.new("RGB", (30, 30)), "a red fox")
    assert one.provenance() == before
    again = tiny_metrics.save_clip(tmp_path / "again" / "same")
    assert metrics.metric("clip-t", again).provenance() == before
    json.dumps(before)


def test_a_network_is_told_by_the_file_that_was_loaded(tmp_path):
    pytest.importorskip("onnxruntime")
    file = tiny_metrics.save_auraface(tmp_path) / "glintr100.onnx"
    loaded = OnnxFile(file)
    made, arguments = loaded.__reduce__()
    assert made(*arguments).digest == loaded.digest
    holding = metric_settings(Words(loaded))
    tiny_metrics.save_auraface(tmp_path, seed=1)
    assert metric_settings(Words(loaded)) == holding != metric_settings(Words(OnnxFile(file)))
    assert OnnxFile(file).digest != loaded.digest
    with pytest.raises(InputError, match=r"glintr100\.onnx was replaced by another file"):
        made(*arguments)
