"""Small trees in the published formats of the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageDraw

from recast_probe.testing.tiny import tiny_image

TEMPLATES = {
    "Object": ["a {0} {1} in the jungle", "a {0} {1} floating on top of water", "a red {0} {1}"],
    "Live Subject": ["a {0} {1} in the jungle", "a {0} {1} wearing a red hat", "a red {0} {1}"],
}


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (64, 64)) -> Path:
    """A red disc, which stands out, on a blurred green picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.blend(tiny_image(*size, seed=seed), Image.new("RGB", size, (40, 120, 60)), 0.9)
    width, height = size
    box = (width / 2 - 16, height / 2 - 16, width / 2 + 16, height / 2 + 16)
    ImageDraw.Draw(image).ellipse(box, fill=(220, 30, 30))
    image.save(path)
    return path


def kontextbench_tree(root: Path, name: str = "test") -> Path:
    """Two pictures, one of them wide, the first with two instructions."""
    rows = [
        ("images/0000.jpg", "give the cat a top hat", "Instruction Editing - Local", "0000_00"),
        ("images/0000.jpg", "make it a neon sign", "Instruction Editing - Global", "0000_01"),
        ("images/0001.jpg", "the same woman on a beach", "Character Reference", "0001_00"),
    ]
    picture(root / name / "images/0000.jpg", 1, (96, 48))
    picture(root / name / "images/0001.jpg", 2)
    fields = ("file_name", "instruction", "category", "key")
    lines = [json.dumps(dict(zip(fields, row, strict=True))) for row in rows]
    (root / name / "metadata.jsonl").write_text("\n".join(lines) + "\n\n")
    return root


def dreambench_tree(root: Path) -> Path:
    for number, (place, subject) in enumerate(
        {
            "live_subject/animal/00": "kitten",
            "live_subject/human/00": "woman",
            "object/03": "cup",
        }.items()
    ):
        picture(root / f"images/{place}.jpg", number)
        captions = root / f"captions/{place}.txt"
        captions.parent.mkdir(parents=True, exist_ok=True)
        lines = [subject, *(f"a {subject} in scene {scene}" for scene in range(9))]
        captions.write_text("\n".join(lines))
    return root


def dreambooth_tree(root: Path) -> Path:
    lists = [
        f"{name} Prompts\n\nprompt_list = [\n"
        + ",\n".join(f"'{each}'.format(unique_token, class_token)" for each in templates)
        + "\n]\n"
        for name, templates in TEMPLATES.items()
    ]
    table = (
        "Classes\n\nsubject_name,class\nbackpack,backpack\ndog3,dog\nbear_plushie,stuffed animal"
    )
    root.mkdir(parents=True, exist_ok=True)
    text = f"{table}\n\nPrompts\n\n" + "\n".join(lists)
    (root / "prompts_and_classes.txt").write_text(text)
    for number, name in enumerate(["backpack", "dog3", "bear_plushie"]):
        for photograph in range(2):
            picture(root / name / f"0{photograph}.jpg", 10 * number + photograph, (80, 64))
    return root
