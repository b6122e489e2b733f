"""Pictures of your own, with a table."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from recast_probe.datasets import folder, mask_origin
from recast_probe.datasets.folder import UNNAMED
from recast_probe.errors import InputError
from tests.datasets.trees import picture

HEADER = "image,prompt,category,mask,seed\n"


@pytest.fixture
def place(tmp_path):
    picture(tmp_path / "photos/fox.png", 1, (60, 40))
    picture(tmp_path / "photos/owl.png", 2)
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 10:20] = 255
    Image.fromarray(mask).save(tmp_path / "fox-mask.png")
    return tmp_path


def test_csv_and_jsonl_say_the_same(place):
    rows = [
        ("photos/fox.png", 'the fox, "on a beach"', "animal", "fox-mask.png", "7"),
        ("photos/fox.png", "the fox in snow", "", "", ""),
        ("photos/owl.png", "the owl\nat \u2028night", "bird", "", "0"),
    ]
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    (place / "table.csv").write_text("\ufeff" + HEADER + "\n".join(quoted) + "\n")
    cases = folder(place)
    assert [case.prompt for case in cases] == [row[1] for row in rows]
    assert [case.category for case in cases] == ["animal", UNNAMED, "bird"]
    assert [case.subject for case in cases] == [row[0] for row in rows]
    assert cases[0].seed == 7
    assert cases[2].seed == 0
    mask = cases[0].reference_mask
    assert mask.shape == (40, 60)
    assert mask[20, 30]
    assert not mask[0].any()
    assert [mask_origin(case) for case in cases] == ["given", "none", "none"]

    fields = HEADER.strip().split(",")
    lines = [
        {k: int(v) if k == "seed" else v for k, v in zip(fields, row, strict=True) if v}
        for row in rows
    ]
    (place / "other.jsonl").write_text(
        "\n".join(json.dumps(each, ensure_ascii=False) for each in lines)
    )
    again = folder(place / "other.jsonl")
    for first, second in zip(cases, again, strict=True):
        assert {**vars(first), "finder": None} == {**vars(second), "finder": None}
    with pytest.raises(InputError, match=r"2 of them \(other.jsonl, table.csv\); name the one"):
        folder(place)


def test_subjects_targets_and_found_masks(place):
    (place / "table.jsonl").write_text(
        json.dumps(
            {
                "image": "photos/fox.png",
                "prompt": "in snow",
                "subject": "fox",
                "target": "photos/owl.png",
            }
        )
    )

    def top(image: Image.Image) -> np.ndarray:
        mask = np.zeros((image.height, image.width))
        mask[: image.height // 2] = 1
        return mask

    (case,) = folder(place, masks=top)
    assert case.subject == "fox"
    assert case.target.size == (64, 64)
    assert case.target_mask[:32].all()
    assert not case.target_mask[32:].any()
    assert mask_origin(case) == top.__qualname__


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER, "has no cases"),
        ("image,promt\nphotos/fox.png,x\n", r"line 2 has the column 'promt'; known are image, pro"),
        (HEADER + "photos/fox.png,x,,\n", "line 2 has not as many cells"),
        (HEADER + "photos/fox.png,x,,,,\n", "line 2 has not as many cells"),
        (HEADER + 'photos/fox.png,"x,,,\n', "is not CSV"),
        (HEADER + ",x,,,\n", "line 2 has no text in image"),
        (HEADER + "photos/fox.png,,,,\n", "line 2 has no text in prompt"),
        (HEADER + "../fox.png,x,,,\n", "line 2: '../fox.png' leaves the folder"),
        (HEADER + "photos/fox.png,x,,/mask.png,\n", "leaves the folder"),
        (HEADER + "photos/fox.png,x,,,-1\n", "the seed '-1' is no whole number"),
        (HEADER + "photos/fox.png,x,,,1.5\n", "the seed '1.5' is no whole number"),
        (HEADER + "photos/cow.png,x,,,\n", "no file .*cow.png'"),
        (HEADER + "photos/owl.png,x,,fox-mask.png,\n", "their aspect ratios differ"),
        (HEADER + "table.csv,x,,,\n", "cannot be read as an image"),
        ("image,prompt,target_mask\nphotos/fox.png,x,fox-mask.png\n", "target_mask, but no target"),
    ],
)
def test_tables_that_cannot_be_used(place, text, message):
    (place / "table.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        folder(place)


def test_no_table_and_no_path(place):
    with pytest.raises(InputError, match="should hold one table"):
        folder(place)
    with pytest.raises(InputError, match="there is no folder"):
        folder(place / "nowhere")
    with pytest.raises(InputError, match="neither"):
        folder(place / "photos/fox.png")
    with pytest.raises(InputError, match="needs its path"):
        folder()
    (place / "latin.csv").write_bytes(b"image,prompt\nphotos/fox.png,caf\xe9\n")
    with pytest.raises(InputError, match="not in UTF-8"):
        folder(place)


def test_an_empty_mask_and_an_upright_photograph(place):
    Image.new("L", (60, 40)).save(place / "empty.png")
    (place / "table.csv").write_text("image,prompt,mask\nphotos/fox.png,x,empty.png\n")
    with pytest.raises(InputError, match="marks no pixel"):
        folder(place)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(place / "photos/fox.png") as opened:
        opened.save(place / "photos/camera.jpg", exif=exif)
    (place / "table.csv").write_text("image,prompt\nphotos/camera.jpg,x\n")
    assert folder(place)[0].reference.size == (40, 60)
    # a mask drawn on the picture as it lies in the file does not fit the upright one
    (place / "table.csv").write_text("image,prompt,mask\nphotos/camera.jpg,x,fox-mask.png\n")
    with pytest.raises(InputError, match="their aspect ratios differ"):
        folder(place)
