"""Tables, archives, training packs, measured numbers and values on the command line."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recast_probe._utils.devices import known_device
from recast_probe.commands.values import OptionError, decimal, whole
from recast_probe.cost_model import config_from_dict
from recast_probe.datasets import dreambench, dreambooth, file_label, folder
from recast_probe.errors import InputError
from recast_probe.files.input_files import parse_json
from recast_probe.paper_claims.measurements import collect
from recast_probe.pocket.subjects import load_pack
from tests.datasets.trees import dreambench_tree, dreambooth_tree


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "'a' twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": 1e999}', "1e999"),
        ('"\\ud800"', "surrogate"),
        ('{"\\udc00": 1}', "surrogate"),
        ("[" * 100_000, "nested"),
        ("[" * 80 + "]" * 80, "nested"),
        ("{", "not JSON"),
        (b"\xff", "not JSON"),
        ("9" * 10_000, "not JSON"),
    ],
    ids=range(11),
)
def test_json_says_each_thing_once(text, message):
    with pytest.raises(InputError, match=message):
        parse_json(text, "a line")


@pytest.fixture
def table(tmp_path):
    place = tmp_path / "data"
    place.mkdir()
    for name in ("a", "b"):
        Image.effect_noise((12, 12), 60).convert("RGB").save(place / f"{name}.png")
    return place


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.jsonl", '{"image": "a.png", "prompt": "x", "image": "b.png"}', "'image' twice"),
        ("t.csv", "image,prompt,image\na.png,x,b.png\n", "'image' twice"),
        ("t.jsonl", '{"image": "a.png", "prompt": "\\ud800"}', "surrogate"),
        ("t.jsonl", '{"image": "a.png", "prompt": "x", "subject": ["y"]}', "subject is no text"),
        *[
            ("t.jsonl", json.dumps({"image": "a.png", "prompt": "x", "seed": seed}), "seed")
            for seed in ("1_000", "+5", "\u0663", 1.5, True, 2**63, "9" * 5000)
        ],
        ("t.csv", f"image,prompt\n{'y' * 300}.png,x\n", "cannot be read"),
        ("t.csv", "image,prompt\nout.png,x\n", "link that leaves"),
        ("t.csv", "image,prompt\nloop.png,x\n", "cannot be followed"),
        ("t.csv", "image,prompt\npipe.png,x\n", "a pipe"),
    ],
)
def test_tables_that_cannot_be_meant(table, name, text, message):
    Image.new("RGB", (4, 4)).save(table.parent / "outside.png")
    (table / "out.png").symlink_to(table.parent / "outside.png")
    (table / "loop.png").symlink_to(table / "loop.png")
    os.mkfifo(table / "pipe.png")
    (table / name).write_text(text)
    with pytest.raises(InputError, match=message):
        folder(table / name)


def test_links_of_the_hubs_cache_are_followed(tmp_path):
    blobs, place = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    place.mkdir(parents=True)
    Image.new("RGB", (4, 4), "red").save(blobs / "1", "PNG")
    (place / "a.png").symlink_to("../../blobs/1")
    (place / "t.csv").write_text("image,prompt\na.png,x\n")
    assert folder(place)[0].reference.getpixel((0, 0)) == (255, 0, 0)


def test_a_picture_that_was_replaced_is_the_new_one(table):
    """Of equal size, and with the times of the old one."""
    (table / "t.csv").write_text("image,prompt\na.bmp,x\n")
    Image.new("RGB", (4, 4), "red").save(table / "a.bmp")
    case = folder(table)[0]
    before, label = os.stat(table / "a.bmp"), file_label([case])
    assert case.reference.getpixel((0, 0)) == (255, 0, 0)
    Image.new("RGB", (4, 4), "blue").save(table / "a.bmp")
    os.utime(table / "a.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(table / "a.bmp").st_size == before.st_size
    assert case.reference.getpixel((0, 0)) == (0, 0, 255)
    assert file_label([case]) != label


def test_a_long_line_of_prompts_is_read_in_time(tmp_path):
    dreambooth_tree(tmp_path)
    path = tmp_path / "prompts_and_classes.txt"
    path.write_text(path.read_text() + "\n'" + "{1}" * 200_000)
    assert len(dreambooth(tmp_path)) == 9


def archive(tmp_path, change, **options):
    path = tmp_path / "data.zip"
    tree = dreambench_tree(tmp_path / "tree")
    with zipfile.ZipFile(path, "w", **options) as packed:
        for each in sorted(tree.rglob("*")):
            if each.is_file():
                packed.write(each, each.relative_to(tree))
        change(packed)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda packed: packed.writestr("../x.jpg", b""), "leaves the folder"),
        (lambda packed: packed.writestr("images/live_subject/animal/00.jpg", b""), "twice"),
        (lambda packed: packed.writestr("images/a.jpg/b.jpg", b""), None),
        (lambda packed: packed.writestr(f"images/{'y' * 300}.jpg", b""), "cannot be unpacked"),
        (lambda packed: packed.writestr("images/big.jpg", bytes(60_000)), "would unpack to more"),
    ],
)
def test_archives_unpack_inside_and_within_limits(tmp_path, monkeypatch, change, message):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("recast_probe.datasets.files.LARGEST_MEMBER", 50_000)
    with pytest.raises(InputError, match=message):
        dreambench(archive(tmp_path, change))
    assert not (tmp_path / "x.jpg").exists()
    assert not list(tmp_path.glob("cache/recast_probe/.*"))


@pytest.mark.parametrize("offset", [8, 10])
def test_encrypted_and_unknown_members(tmp_path, monkeypatch, offset):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = archive(tmp_path, lambda packed: None)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + offset] |= 0x41
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be unpacked"):
        dreambench(path)


def pack(path: Path, **changes):
    arrays = {
        "rgba": np.zeros((3, 96, 96, 4), np.uint8),
        **{name: np.array(["a", "b", "c"]) for name in ("key", "name", "style")},
    } | changes
    np.savez_compressed(
        path, **{name: value for name, value in arrays.items() if value is not None}
    )
    return path


def test_training_packs(tmp_path):
    assert [each.name for each in load_pack(pack(tmp_path / "whole.npz"))] == ["a", "b", "c"]
    for changes in (
        {"key": None},
        {"extra": np.zeros(2)},
        {"name": np.array([object()] * 3)},
        {"name": np.array(["a"])},
        {"rgba": np.zeros((3, 96, 96, 3), np.uint8)},
        {"rgba": np.zeros((3, 96, 96, 4))},
    ):
        with pytest.raises(InputError, match="no training pack") as raised:
            load_pack(pack(tmp_path / "other.npz", **changes))
        assert "allow_pickle" not in str(raised.value)
    (tmp_path / "none.npz").write_bytes(b"x")
    with pytest.raises(InputError, match="no training pack"):
        load_pack(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        ({"retention": -1e7}, "retention is -1"),
        ({"retention": "0.9"}, "retention is '0.9'"),
        ({"retention": True}, "retention is True"),
        ({"auroc": 1.5}, "auroc is 1.5"),
        ({"top25": 10**400}, "top25 is 1000"),
        ({"spearman": -2}, "spearman is -2"),
        ({"entropy_last": 99}, "entropy_last is 99"),
        ({"ip_adapter_tokens": 0}, "ip_adapter_tokens is 0"),
        ({"merge_above_random": {"mean": 0.1, "low": 0.3, "high": 0.2}}, "ends before it begins"),
        ({"merge_above_random": {"mean": 0.1, "p_value": 2}}, "p_value is 2"),
        ({"merge_above_random": {"low": 0.1}}, "no mean"),
        ({"merge_above_random": {"mean": [1]}}, "mean is"),
        ([], "holds nothing"),
    ],
)
def test_measured_numbers_that_cannot_be(tmp_path, measured, message):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"model": "m", "measured": measured}))
    with pytest.raises(InputError, match=message):
        collect([path])


def test_summaries_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nan.json").write_text('{"model": "m", "measured": {"retention": NaN}}')
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path, "x" * 300, tmp_path / "nan.json"):
        with pytest.raises(InputError, match="no summary"):
            collect([path])


@pytest.mark.parametrize(
    "text", ["1_000", "+5", "\u0663", "1.0", "", "0x10", "9" * 40, "-1", "1001"]
)
def test_whole_numbers_are_plain(text):
    with pytest.raises(OptionError, match="--steps"):
        whole("--steps", 1, 1000)(text)
    assert whole("--steps", 1, 1000)(" 28 ") == 28


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1_0", "1e999", "\u0663", "", "0", "-1"])
def test_decimal_numbers_are_finite(text):
    with pytest.raises(OptionError, match="--gamma"):
        decimal("--gamma", 0, above=True)(text)
    assert decimal("--gamma", 0, above=True)("1.5e1") == 15


@pytest.mark.parametrize("device", ["abacus", "cuda", "cuda:99", "mps", "meta", "xla", "", "cpu:x"])
def test_devices_that_are_not_here(device):
    import torch

    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("it is here")
    with pytest.raises(InputError, match="device="):
        known_device(device)
    assert known_device("cpu").type == "cpu"


@pytest.mark.parametrize("value", ["x", None, [], -1, 1e300, float("inf"), 0])
def test_configs_of_impossible_sizes(value):
    config = {
        **{"_class_name": "FluxTransformer2DModel", "num_layers": 2, "num_single_layers": 2},
        **{"num_attention_heads": 4, "attention_head_dim": 8, "in_channels": 16},
        **{"joint_attention_dim": 32, "pooled_projection_dim": 32, "guidance_embeds": False},
    }
    assert config_from_dict(config).blocks == 4
    with pytest.raises(InputError, match="config"):
        config_from_dict(config | {"attention_head_dim": value})
