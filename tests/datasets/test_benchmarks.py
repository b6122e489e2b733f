"""The published benchmarks, from small trees of their formats."""

from __future__ import annotations

import json
import os
import zipfile

import huggingface_hub
import numpy as np
import pytest
from PIL import Image

from recast_probe.datasets import (
    BENCHMARKS,
    dreambench,
    dreambooth,
    kontextbench,
    load_benchmark,
    mask_origin,
)
from recast_probe.datasets.files import inside
from recast_probe.errors import InputError
from recast_probe.pocket.bench import pocket_bench
from tests.datasets.trees import dreambench_tree, dreambooth_tree, kontextbench_tree, picture


def left_half(image: Image.Image) -> np.ndarray:
    mask = np.zeros((image.height, image.width), bool)
    mask[:, : image.width // 2] = True
    return mask


def test_kontextbench(tmp_path):
    cases = kontextbench(kontextbench_tree(tmp_path))
    assert [(case.subject, case.prompt, case.category) for case in cases] == [
        ("0000", "give the cat a top hat", "Instruction Editing - Local"),
        ("0000", "make it a neon sign", "Instruction Editing - Global"),
        ("0001", "the same woman on a beach", "Character Reference"),
    ]
    first = cases[0]
    assert first.reference.size == (96, 48)
    assert first.reference.mode == "RGB"
    assert first.reference_mask is first.target is first.target_mask is None
    assert mask_origin(first) == "none"
    assert len({case.seed for case in cases}) == 3
    # the folder of a split is as good
    assert [each.seed for each in kontextbench(tmp_path / "test")] == [each.seed for each in cases]


def test_a_part_is_the_beginning_of_the_whole_with_the_same_noise(tmp_path):
    kontextbench_tree(tmp_path)
    whole, other = kontextbench(tmp_path), kontextbench(tmp_path, seed=1)
    part = kontextbench(tmp_path, subjects=2, prompts=1)
    wanted = [whole[0], whole[2]]
    assert [(e.prompt, e.seed) for e in part] == [(e.prompt, e.seed) for e in wanted]
    assert not {case.seed for case in whole} & {case.seed for case in other}
    assert len(kontextbench(tmp_path, subjects=99, prompts=99)) == 3
    for wrong in ({"subjects": 0}, {"prompts": -1}, {"subjects": True}):
        with pytest.raises(InputError, match="whole number of at least 1"):
            kontextbench(tmp_path, **wrong)


def test_a_finder_fills_in_masks(tmp_path):
    case = kontextbench(kontextbench_tree(tmp_path), masks=left_half)[0]
    np.testing.assert_array_equal(case.reference_mask, left_half(case.reference))
    assert mask_origin(case) == "left_half"
    nothing = kontextbench(tmp_path, masks=lambda image: np.zeros(image.size[::-1], bool))[0]
    assert nothing.reference_mask is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "metadata.jsonl, line 1 is not JSON"),
        ("[]", "line 1 is not a JSON object, but list"),
        ({"file_name": "images/0000.jpg", "category": "x"}, "has no text in instruction"),
        ({"file_name": "images/0000.jpg", "instruction": " ", "category": "x"}, "no text in instr"),
        ({"file_name": "../../0.jpg", "instruction": "x", "category": "x"}, "leaves the folder"),
        ({"file_name": "/0.jpg", "instruction": "x", "category": "x"}, "leaves the folder"),
        ({"file_name": "images/9.jpg", "instruction": "x", "category": "x"}, "no file .*9.jpg'"),
        ("", "has no cases"),
    ],
)
def test_a_damaged_kontextbench(tmp_path, line, message):
    table = kontextbench_tree(tmp_path) / "test/metadata.jsonl"
    table.write_text(line if isinstance(line, str) else json.dumps(line))
    with pytest.raises(InputError, match=message):
        kontextbench(tmp_path)


def test_all_unreadable_pictures_are_named_at_once(tmp_path):
    kontextbench_tree(tmp_path)
    for name in ("0000", "0001"):
        path = tmp_path / f"test/images/{name}.jpg"
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(InputError, match=r"(?s)KontextBench cannot be used:.*0000.*0001"):
        kontextbench(tmp_path)
    picture(tmp_path / "test/images/0000.jpg")
    assert len(kontextbench(tmp_path, subjects=1)) == 2


@pytest.mark.parametrize("loader", [kontextbench, dreambench, dreambooth])
def test_a_folder_that_is_not_there_or_is_another(loader, tmp_path):
    with pytest.raises(InputError, match=r"there is no folder .*It should hold"):
        loader(tmp_path / "nowhere")
    with pytest.raises(InputError, match="hold"):
        loader(tmp_path)


def test_dreambench(tmp_path):
    cases = dreambench(dreambench_tree(tmp_path))
    assert len(cases) == 3 * 9
    assert [case.subject for case in cases[::9]] == [
        "kitten (animal 00)",
        "woman (human 00)",
        "cup (object 03)",
    ]
    assert [case.category for case in cases[::9]] == ["animal", "human", "object"]
    assert cases[0].prompt == "a kitten in scene 0"
    assert len(dreambench(tmp_path, subjects=2, prompts=4)) == 8


def test_dreambench_in_its_archive(tmp_path, monkeypatch):
    """The hub holds one data.zip with a folder data/ in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tree = dreambench_tree(tmp_path / "tree")
    (tmp_path / "hub").mkdir()
    with zipfile.ZipFile(tmp_path / "hub/data.zip", "w") as archive:
        for path in sorted(tree.rglob("*.*")):
            archive.write(path, f"data/{path.relative_to(tree).as_posix()}")
        archive.writestr("__MACOSX/data/images/._00.jpg", "resource fork")
        archive.writestr("data/preview.py", "print('never run')")
        link = zipfile.ZipInfo("data/images/link.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/hostname")
    plain = dreambench(tree)
    for place in (tmp_path / "hub", tmp_path / "hub/data.zip"):
        cases = dreambench(place)
        assert [(c.subject, c.seed) for c in cases] == [(c.subject, c.seed) for c in plain]
        assert cases[0].reference.tobytes() == plain[0].reference.tobytes()
    (folder,) = (tmp_path / "cache/recast_probe").iterdir()
    assert not [path for path in folder.rglob("*") if path.suffix == ".py" or path.is_symlink()]


@pytest.mark.parametrize("name", ["../out.jpg", "/out.jpg", "a/../../out.jpg", "C:\\out.jpg"])
def test_an_archive_cannot_write_elsewhere(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(InputError, match="leaves the folder"):
        dreambench(tmp_path / "data.zip")
    assert not list((tmp_path / "cache/recast_probe").iterdir())
    assert not list(tmp_path.rglob("out.jpg"))


def test_archives_that_cannot_be_unpacked(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data.zip").write_bytes(b"PK, but not really")
    with pytest.raises(InputError, match="download it again"):
        dreambench(tmp_path)
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images/00.jpg", bytes(2_000_000))
    monkeypatch.setattr("recast_probe.datasets.files.LARGEST_ARCHIVE", 1_000_000)
    with pytest.raises(InputError, match="would unpack to more than"):
        dreambench(tmp_path)


def test_dreambench_that_is_not_complete(tmp_path):
    dreambench_tree(tmp_path)
    os.remove(tmp_path / "captions/object/03.txt")
    with pytest.raises(InputError, match=r"1 files .* no caption file, the first is images/object"):
        dreambench(tmp_path)
    (tmp_path / "captions/object/03.txt").write_text("cup\n")
    with pytest.raises(InputError, match="the subject and then prompts"):
        dreambench(tmp_path)
    os.remove(tmp_path / "images/object/03.jpg")
    with pytest.raises(InputError, match=r"no picture, the first is captions/object/03.txt"):
        dreambench(tmp_path)


def test_dreambooth(tmp_path):
    cases = dreambooth(dreambooth_tree(tmp_path))
    assert [(case.subject, case.category, case.prompt) for case in cases[::3]] == [
        ("backpack", "object", "a backpack in the jungle"),
        ("dog3", "live subject", "a dog in the jungle"),
        ("bear_plushie", "object", "a stuffed animal in the jungle"),
    ]
    assert cases[4].prompt == "a dog wearing a red hat"
    assert {case.reference_file.name for case in cases} == {"00.jpg"}
    every = dreambooth(tmp_path, photographs=None, token="sks")
    assert len(every) == 2 * len(cases)
    assert every[0].subject == "backpack 00"
    assert every[0].prompt == "a sks backpack in the jungle"


def test_a_part_of_dreambooth_says_what_is_left_out(tmp_path):
    dreambooth_tree(tmp_path / "dataset")
    for path in (tmp_path / "dataset/dog3").iterdir():
        path.unlink()
    with pytest.warns(UserWarning, match="1 of the 3 subjects .* left out: dog3"):
        cases = dreambooth(tmp_path)
    assert {case.subject for case in cases} == {"backpack", "bear_plushie"}
    with pytest.raises(InputError, match=r"needs the path .*git clone"):
        dreambooth()
    (tmp_path / "dataset/prompts_and_classes.txt").write_text("Classes\n\na,b\n")
    with pytest.raises(InputError, match="found 1 subjects, 0 and 0 prompts"):
        dreambooth(tmp_path)


@pytest.mark.skipif("RECAST_PROBE_DREAMBOOTH" not in os.environ, reason="names its folder")
@pytest.mark.filterwarnings("ignore:DreamBooth")
def test_the_real_photographs():
    cases = dreambooth(os.environ["RECAST_PROBE_DREAMBOOTH"])
    subjects = {case.subject for case in cases}
    assert len(cases) == 25 * len(subjects)
    live = {case.subject for case in cases if case.category == "live subject"}
    assert live == {name for name in subjects if name.startswith(("cat", "dog"))}
    assert not [case.prompt for case in cases if "{" in case.prompt or "  " in case.prompt]


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("kontextbench", "black-forest-labs/kontext-bench"),
        ("dreambench", "yuangpeng/dreambench_plus"),
    ],
)
def test_without_a_folder_the_hub_is_asked(name, repository, tmp_path, monkeypatch):
    tree = {"kontextbench": kontextbench_tree, "dreambench": dreambench_tree}[name](tmp_path)
    asked = []

    def download(repo_id, repo_type):
        asked.append((repo_id, repo_type))
        return str(tree)

    with monkeypatch.context() as patched:
        patched.setattr(huggingface_hub, "snapshot_download", download)
        assert len(load_benchmark(name)) == len(load_benchmark(name, tree))
    assert asked == [(repository, "dataset")]
    # offline, with an empty cache
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(InputError, match=f"hf download {repository} --repo-type dataset"):
        load_benchmark(name)


def test_pocket_bench_has_the_same_face():
    cases, plain = load_benchmark("pocket", subjects=2, prompts=3), pocket_bench(2, 3)
    assert [(c.subject, c.prompt, c.seed) for c in cases] == [
        (c.subject, c.prompt, c.seed) for c in plain
    ]
    assert {mask_origin(case) for case in cases} == {"given"}
    with pytest.raises(InputError, match="PocketBench ships with the package"):
        load_benchmark("pocket", "somewhere")
    with pytest.raises(InputError, match="no benchmark 'imagenet'; there is pocket, kontextbench"):
        load_benchmark("imagenet")
    assert BENCHMARKS[0] == "pocket"


@pytest.mark.parametrize("name", ["", " ", None, 3, "a\0b", "..", "a/../b", "\\\\host\\a", "\\a"])
def test_paths_that_are_none(name, tmp_path):
    with pytest.raises(InputError, match=r"no path of a file|leaves the folder"):
        inside(tmp_path, name, "here")
